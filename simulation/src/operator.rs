//! The operator: takes a member out of the group while calls run, and adds it again, with its store or with an empty one
//! (HA 2.6; RULES 3.2, 3.3). It is a process of its own, with links that fail like those of the others, and does what
//! `vtl haAdmin removeMember` and `addMember` do, by the same code of `ha`.
//!
//! ```text
//! log in -> promote another home, if need be -> Change::Remove -> a while -> [an empty store] -> Change::Add
//!        -> [home: Export credentials -> joiner: Adopt] -> synchronize                  each repeated until it is done
//! ```
use std::sync::Arc;

use ha::{Change, Group, GroupSettings};
use spec::messages::{Adopt, Answer, Call, Export, Login};
use spec::record::MemberRole;
use spec::seam::MemberId;
use spec::{Rv, UserType};

use crate::members::{CO_PIN, GROUP_SERIAL, MEMBERS, Member, ask, caller, id, ticket};
use crate::network::MS;
use crate::platform::{BORN_MS, Simulated};
use crate::ways::Ways;
use crate::world::World;

/// Between two tries of one step, in milliseconds.
const AGAIN_MS: u64 = 300;
/// So often a step is tried before the operator leaves the group as it is; adding is never given up.
const TRIES_MAX: usize = 20;
/// How long one step may take, in milliseconds.
const STEP_MS: u64 = 4_000;

/// See the head of this file.
pub(crate) struct Operator {
    world: Arc<World>,
    network: Arc<dyn Ways>,
    members: Arc<Vec<Member>>,
    group: Arc<Group>,
}

impl Operator {
    /// An operator at the host of this number.
    pub(crate) fn new(
        world: &Arc<World>,
        network: &Arc<dyn Ways>,
        members: &Arc<Vec<Member>>,
        number: usize,
    ) -> Self {
        let settings = GroupSettings {
            members: (0..MEMBERS).map(id).collect(),
            serial: Some(GROUP_SERIAL),
            outage_wait_ms: STEP_MS,
            call_ms_max: 3 * STEP_MS,
            receive_timeout_ms: STEP_MS,
            ..GroupSettings::default()
        };
        let (platform, seam) = network.operator(&Simulated::new(world.clone(), number));
        let group = Group::new(platform, seam, settings);
        Self { world: world.clone(), network: network.clone(), members: members.clone(), group }
    }

    /// Takes the member out, and adds it again after so many milliseconds; with an empty store where that is wanted.
    pub(crate) fn replace(&self, place: usize, away_ms: u64, emptied: bool) {
        let member = id(place);
        self.network.watch().leaves(place);
        let mut tries = 0..TRIES_MAX;
        let removed = tries.any(|_| self.step(|ticket| self.remove(member, ticket)));
        self.world.note(18, || format!("member {place} is taken out: {removed}"));
        self.world.sleep(away_ms * MS);
        // A removal that nobody heard the end of may have happened: then the store is as if it had.
        let may_lose = !self.members.iter().any(Member::was_restored);
        let empty = removed && emptied && may_lose && self.members[place].replace_store(place);
        if empty {
            self.world.note(18, || format!("member {place} has an empty store"));
        }
        while !self.world.is_aborted() && !self.step(|ticket| self.add(place, empty, ticket)) {}
        self.world.note(18, || format!("member {place} is a member again"));
        let _ = self.step(|ticket| self.group.synchronize(ticket, false, &mut |_, _| {}).map(drop));
        self.group.close();
    }

    /// One step with a new login; whether it was done.
    fn step(&self, step: impl FnOnce(&[u8]) -> Result<(), ha::Error>) -> bool {
        let pin = self.network.watch().pin(u64::MAX);
        self.group.refresh();
        let login = Login { user: UserType::USER.0, pin, tag: Vec::new() };
        let done = self.group.login(login, &[]).and_then(|ticket| step(&ticket));
        if let Err(error) = &done {
            self.world.note(18, || format!("the operator tries again: {error}"));
            self.world.sleep(AGAIN_MS * MS);
        }
        done.is_ok()
    }

    fn remove(&self, member: MemberId, ticket: &[u8]) -> Result<(), ha::Error> {
        let manifest = self.group.manifest().ok_or(ha::Error::Rv(Rv::DEVICE_ERROR))?;
        if manifest.home == member.0 {
            let next = manifest.members.iter().find(|entry| entry.serial != member.0);
            let next = next.expect("a group of three has others");
            self.group.promote(MemberId(next.serial), ticket)?;
        }
        let changed = self.group.change_members(&Change::Remove(member), ticket)?;
        // As `vtl` says: whoever could not be told is told by the command repeated.
        match changed.untold.iter().any(|untold| *untold != member) {
            true => Err(ha::Error::Rv(Rv::DEVICE_ERROR)),
            false => Ok(()),
        }
    }

    fn add(&self, place: usize, empty: bool, ticket: &[u8]) -> Result<(), ha::Error> {
        let change = Change::Add { member: id(place), role: MemberRole::Active };
        let changed = self.group.change_members(&change, ticket)?;
        match !empty || self.adopt(place, &changed.manifest, &changed.sealed) {
            true => Ok(()),
            false => Err(ha::Error::Rv(Rv::DEVICE_ERROR)),
        }
    }

    /// The new partition adopts the group; whether it has.
    fn adopt(&self, place: usize, manifest: &spec::record::Manifest, sealed: &[u8]) -> bool {
        let now_ms = BORN_MS + self.world.now() / MS;
        let Some(joiner) = self.members[place].partition() else { return false };
        if joiner.manifest().group == manifest.group {
            return true;
        }
        let partitions = self.members.iter().filter_map(Member::partition);
        let Some(home) = partitions.into_iter().find(|one| one.serial() == manifest.home) else {
            return false;
        };
        let own = caller(0);
        let officer = ticket(&home, &own, &self.network.watch().pin(home.header().credential_epoch), now_ms);
        let export = Export { credentials: true, ..Export::default() };
        let Some(Answer::Export(exported)) = ask(&home, &own, &officer, Call::Export(export), now_ms) else {
            return false;
        };
        let adopt = Adopt {
            group: manifest.group.clone(),
            generation: manifest.generation,
            manifest: sealed.to_vec(),
            credentials: exported.credentials.clone(),
        };
        let officer = ticket(&joiner, &own, CO_PIN, now_ms);
        ask(&joiner, &own, &officer, Call::Adopt(adopt), now_ms).is_some()
    }
}
