//! The manifest of the group and the standing of the member (HA 2.6, RULES 3.2, 3.3).
//!
//! ```text
//! birth: a group of one, home is itself -> ChangeManifest at the home (compare-and-set) -> Adopt on an empty joiner
//!        -> Join carries greater epochs to the others
//! promotion: a member makes itself the home and changes nothing else; its credentials outdo those of the old home
//! ```
use prost::Message;
use spec::flags::token;
use spec::mechanisms::ROWS;
use spec::messages::{
    Adopt, ChangeManifest, ChangeManifestAnswer, Done, MechanismFacts, Outcome, Status, StatusAnswer,
};
use spec::record::{Manifest, MemberRole};

use crate::bounds;
use crate::contents::{Change, Contents};
use crate::error::Refusal;
use crate::left::Left;
use crate::partition::{Caller, LinkFacts, Partition};
use crate::roles::{Access, Credentials, Role, change_tag, next_epoch};
use crate::seal::{Context, Group, NotOpened, What};
use crate::settings::PIN_BYTES_MAX;
use crate::sightings::is_member;
use crate::store::Tries;

/// The software and release that Status names.
const SOFTWARE: &str = concat!("hatoki ", env!("CARGO_PKG_VERSION"));
/// Longest label of a token, in bytes (PKCS #11 v3.1, 3.2).
const LABEL_BYTES_MAX: usize = 32;

impl Partition {
    /// Refuses what only the home member does (HA 2.7).
    pub(crate) fn check_home(&self, contents: &Contents) -> Result<(), Refusal> {
        let home = contents.manifest.home;
        if home == self.serial {
            return Ok(());
        }
        Err(Refusal::new(Outcome::NOT_HOME, format!("only the home member does this: ask partition {home}")))
    }

    pub(crate) fn sealed_manifest(&self, contents: &Contents) -> Vec<u8> {
        let context = Context { group: contents.group(), what: What::Manifest };
        self.sealer.seal(&context, &contents.manifest.encode_to_vec())
    }

    pub(crate) fn open_manifest(&self, group: Group, envelope: &[u8]) -> Result<Manifest, Refusal> {
        let plain = self.sealer.open(&Context { group, what: What::Manifest }, envelope)?;
        let manifest = Manifest::decode(plain.as_slice()).map_err(|_| NotOpened)?;
        let same = manifest.group == group.id && manifest.generation == group.generation;
        if same { Ok(manifest) } else { Err(NotOpened.into()) }
    }

    pub(crate) fn open_credentials(&self, group: Group, envelope: &[u8]) -> Result<Credentials, Refusal> {
        let plain = self.sealer.open(&Context { group, what: What::Credentials }, envelope)?;
        Ok(Credentials::decode(plain.as_slice()).map_err(|_| NotOpened)?)
    }

    /// Compare-and-set of the manifest at the home, or at the member that it makes the home (HA 2.7); a resend of what was
    /// executed is answered as it was.
    pub(crate) fn change_manifest(
        &self,
        access: &Access<'_>,
        change: &ChangeManifest,
    ) -> Result<ChangeManifestAnswer, Refusal> {
        access.officer()?;
        bounds::tag(&change.tag)?;
        let wanted = bounds::present("a manifest", change.manifest.as_ref())?;
        let tag = change_tag(access.caller, &change.tag);
        self.write(|contents| {
            let held = &contents.manifest;
            let promotes = is_promotion(held, wanted, self.serial);
            if !promotes {
                self.check_home(contents)?;
            }
            if held.tag == tag {
                return Ok((Change::default(), ()));
            }
            if held.epoch != change.expected_epoch {
                let text = format!("wanted manifest epoch {}, found {}", change.expected_epoch, held.epoch);
                return Err(Refusal::new(Outcome::EPOCH_CHANGED, text));
            }
            check_manifest(held, wanted)?;
            let epoch = if promotes { next_term(held.epoch) } else { held.epoch + 1 };
            let mut manifest = Manifest { epoch, tag: tag.clone(), ..wanted.clone() };
            let credentials = promotes.then(|| {
                let epoch = next_epoch(&contents.credentials, &manifest);
                Credentials { epoch, ..contents.credentials.clone() }
            });
            manifest.credential_epoch = credentials.as_ref().unwrap_or(&contents.credentials).epoch;
            Ok((Change { manifest: Some(manifest), credentials, ..Change::default() }, ()))
        })?;
        let contents = self.contents.read();
        Ok(ChangeManifestAnswer {
            manifest: Some(contents.manifest.clone()),
            sealed: self.sealed_manifest(&contents),
        })
    }

    /// Whether this partition has done this adoption already: then a resend, whose ticket died with the old group, is OK.
    pub(crate) fn has_adopted(&self, adopt: &Adopt) -> bool {
        let contents = self.contents.read();
        let group = contents.group();
        group.id[..] == adopt.group
            && group.generation == adopt.generation
            && self
                .open_manifest(group, &adopt.manifest)
                .is_ok_and(|given| given.epoch <= contents.manifest.epoch)
    }

    /// Makes this empty partition a member of another group of the domain. What it knows goes along: its tombstones, so
    /// that no destroyed key comes back with the group (HA 1.2), and how far it has seen each group that it has left, so
    /// that no older manifest or PIN comes back with it (HA 2.7).
    pub(crate) fn adopt(&self, access: &Access<'_>, adopt: &Adopt) -> Result<Done, Refusal> {
        access.officer()?;
        let id = adopt.group.as_slice().try_into();
        let id = id.map_err(|_| Refusal::malformed("wanted a group id of 16 bytes, found another length"))?;
        let group = Group { id, generation: adopt.generation };
        let manifest = self.open_manifest(group, &adopt.manifest)?;
        let credentials = self.open_credentials(group, &adopt.credentials)?;
        if !manifest.members.iter().any(|member| member.serial == self.serial) {
            let text = format!(
                "wanted a manifest that names partition {}, found another; add it first",
                self.serial
            );
            return Err(Refusal::malformed(text));
        }
        self.write(|contents| {
            check_adoption(contents, &manifest, &credentials)?;
            if !contents.index.is_empty_but_for_tombstones() {
                let text =
                    "wanted an empty partition, found objects; only an empty partition joins another group";
                return Err(Refusal::new(Outcome::FAILED, text));
            }
            let change = Change {
                records: contents.index.all().map(|(_, held)| held.record.clone()).collect(),
                left: Some(contents.left.with(Left::of(contents))),
                manifest: Some(manifest.clone()),
                credentials: Some(credentials.clone()),
                ..Change::default()
            };
            Ok((change, Done {}))
        })
    }

    pub(crate) fn status(
        &self,
        link: &LinkFacts,
        caller: &Caller,
        status: &Status,
        now_ms: u64,
    ) -> Result<StatusAnswer, Refusal> {
        let [officer, user] =
            [Role::SecurityOfficer, Role::CryptoOfficer].map(|role| self.store.tries(role.user().0));
        let (officer, user) = (officer?, user?);
        self.hear(&status.seen)?;
        let contents = self.contents.read();
        let failed = |tries: &[([u8; 32], Tries)]| {
            tries.iter().fold(0_u32, |sum, (_, tries)| sum.saturating_add(tries.failed))
        };
        let own = |tries: &[([u8; 32], Tries)]| {
            tries.iter().find(|(client, _)| *client == caller.client).map(|(_, tries)| tries.clone())
        };
        let flags = self.pin_flags(own(&user), now_ms) | (self.pin_flags(own(&officer), now_ms) << 4);
        let initialized = if contents.credentials.verifier(Role::CryptoOfficer).is_some() {
            token::USER_PIN_INITIALIZED
        } else {
            0
        };
        let mut seen = self.board.of_others(&contents.manifest, self.serial);
        if link.replicator {
            seen.extend(link.seen.iter().filter(|seen| is_member(&contents.manifest, seen.serial)).cloned());
        }
        let mut answer = StatusAnswer {
            label: self.label.clone(),
            serial: self.serial,
            token_flags: flags | initialized | token::RNG | token::LOGIN_REQUIRED | token::TOKEN_INITIALIZED,
            manifest: Some(contents.manifest.clone()),
            root: contents.index.tree.root().0.to_vec(),
            objects: contents.index.live_count(),
            recovering: contents.recovering,
            pin_bytes_min: self.settings.pin_bytes_min,
            pin_bytes_max: PIN_BYTES_MAX,
            mechanisms: if status.mechanisms { self.facts() } else { Vec::new() },
            software: SOFTWARE.into(),
            quarantined: contents.index.quarantined_count(),
            wall_ms: if link.wall_ms > 0 { link.wall_ms } else { now_ms },
            failed_tries_user: failed(&user),
            failed_tries_so: failed(&officer),
            server_certificate_ends_ms: link.server_certificate_ends_ms,
            client_certificate_ends_ms: link.client_certificate_ends_ms,
            incarnation: contents.incarnation,
            seq: contents.seq,
            credentials: contents.credentials.name(&self.credential_key),
            seen,
            proof: Vec::new(),
        };
        answer.proof = self.board.proof(&answer.own_word());
        Ok(answer)
    }

    /// `CK_MECHANISM_INFO` of every mechanism that this partition offers (PKCS #11 v3.1, 5.5.6).
    fn facts(&self) -> Vec<MechanismFacts> {
        let fact = |row: &spec::mechanisms::Row| MechanismFacts {
            number: row.mechanism.0,
            key_size_min: row.key_size_min,
            key_size_max: row.key_size_max,
            flags: row.flags,
        };
        ROWS.iter().filter(|row| self.settings.offers(row.mechanism)).map(fact).collect()
    }

    /// The `CKF_USER_PIN_*` flags of this client's own tries; those of the security officer stand four bits higher.
    fn pin_flags(&self, tries: Option<Tries>, now_ms: u64) -> u64 {
        let Some(tries) = tries else { return 0 };
        let rules = self.settings.try_rules();
        let low = if tries.failed > 0 { token::USER_PIN_COUNT_LOW } else { 0 };
        let last = if tries.failed + 1 >= rules.free_tries { token::USER_PIN_FINAL_TRY } else { 0 };
        let locked = if tries.remaining_ms(now_ms, &rules) > 0 { token::USER_PIN_LOCKED } else { 0 };
        low | last | locked
    }
}

/// Whether a change makes this member the home and changes nothing else (HA 2.7).
fn is_promotion(held: &Manifest, wanted: &Manifest, serial: u64) -> bool {
    let moved = Manifest {
        home: serial,
        epoch: wanted.epoch,
        generation: wanted.generation,
        tag: wanted.tag.clone(),
        credential_epoch: wanted.credential_epoch,
        ..held.clone()
    };
    held.home != serial && moved == *wanted
}

/// The first epoch of the next term. The upper 32 bits of an epoch count promotions, so that whatever a lost home goes on
/// deciding, however often, is older than what the promoted one decides (HA 2.7).
fn next_term(epoch: u64) -> u64 {
    ((epoch >> 32) + 1) << 32
}

/// The greater epoch wins, and of two promotions at a time the greater tag, so that all members end with one manifest
/// (HA 2.6).
pub(crate) fn is_newer(manifest: &Manifest, held: &Manifest) -> bool {
    (manifest.epoch, &manifest.tag) > (held.epoch, &held.tag)
}

/// What an adoption must be, as far as this partition can tell: into another group than its own, whose news come by Join,
/// and not back to an older state of that group than it has seen.
fn check_adoption(
    contents: &Contents,
    manifest: &Manifest,
    credentials: &Credentials,
) -> Result<(), Refusal> {
    if manifest.group == contents.group().id {
        let text = "wanted the manifest of another group, found that of the partition's own; join it instead";
        return Err(Refusal::new(Outcome::FAILED, text));
    }
    let left = contents.left.get(&manifest.group);
    let least = left.map_or(0, |left| left.credential_epoch).max(manifest.credential_epoch);
    let older = left.is_some_and(|left| manifest.epoch < left.manifest_epoch);
    if older || credentials.epoch < least {
        let text = format!(
            "wanted manifest epoch {} and credential epoch {least} or later, found {} and {}; export them anew at the home",
            left.map_or(manifest.epoch, |left| left.manifest_epoch),
            manifest.epoch,
            credentials.epoch
        );
        return Err(Refusal::new(Outcome::EPOCH_CHANGED, text));
    }
    Ok(())
}

/// What every manifest of the group must be.
fn check_manifest(held: &Manifest, wanted: &Manifest) -> Result<(), Refusal> {
    let broken = |text: &str| Err(Refusal::malformed(text));
    if wanted.group != held.group || wanted.generation != held.generation {
        return broken("wanted a manifest of this group and generation, found another");
    }
    bounds::at_most("members", wanted.members.len(), bounds::MEMBERS_MAX)?;
    bounds::at_most("bytes in a label", wanted.label.len(), LABEL_BYTES_MAX)?;
    let mut serials: Vec<u64> = wanted.members.iter().map(|member| member.serial).collect();
    serials.sort_unstable();
    if serials.windows(2).any(|pair| pair[0] == pair[1]) || serials.first() == Some(&0) {
        return broken("wanted each member once, by a serial number above 0, found otherwise");
    }
    if wanted.members.iter().any(|member| MemberRole::try_from(member.role).is_err() || member.weight == 0) {
        return broken("wanted known roles and weights above 0, found others");
    }
    if serials.binary_search(&wanted.home).is_err() {
        return broken("wanted a home among the members, found none");
    }
    Ok(())
}
