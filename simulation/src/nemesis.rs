//! What goes wrong, and when: drawn from the seed, one fault after another, until the world is to come to rest.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::members::{MEMBERS, Member};
use crate::network::{MS, Network};
use crate::platform::Simulated;
use crate::world::World;

/// Who makes the faults.
pub(crate) struct Nemesis {
    world: Arc<World>,
    network: Arc<Network>,
    members: Arc<Vec<Member>>,
    platforms: Vec<Arc<Simulated>>,
    calm: AtomicBool,
}

impl Nemesis {
    /// Begins; a world without faults when `faults` is false.
    pub(crate) fn begin(
        world: &Arc<World>,
        network: &Arc<Network>,
        members: &Arc<Vec<Member>>,
        platforms: Vec<Arc<Simulated>>,
        faults: bool,
    ) -> Arc<Self> {
        let nemesis = Arc::new(Self {
            world: world.clone(),
            network: network.clone(),
            members: members.clone(),
            platforms,
            calm: AtomicBool::new(!faults),
        });
        nemesis.next();
        nemesis
    }

    /// No more faults; members that are down start.
    pub(crate) fn calm(self: &Arc<Self>) {
        self.calm.store(true, Ordering::Relaxed);
        self.network.calm();
        for place in 0..MEMBERS {
            self.members[place].disk.set_full(false);
            self.members[place].disk.power();
            if self.members[place].partition().is_none() {
                self.start(place);
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn draw(&self, low: u64, high: u64) -> u64 {
        self.world.chance(|chance| chance.between(low, high))
    }

    fn next(self: &Arc<Self>) {
        let nemesis = self.clone();
        self.world.after(self.draw(50, 700) * MS, move || {
            if !nemesis.is_calm() {
                nemesis.strike();
                nemesis.next();
            }
        });
    }

    fn later(self: &Arc<Self>, ms: u64, what: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let nemesis = self.clone();
        self.world.after(ms * MS, move || what(&nemesis));
    }

    fn strike(self: &Arc<Self>) {
        let (member, process) =
            self.world.chance(|chance| (chance.place(MEMBERS), chance.place(self.platforms.len()) + 1));
        match self.draw(0, 13) {
            0 | 1 => self.network.break_link(process, member),
            2 => self.network.cut(process, member, true, self.draw(200, 3_000) * MS),
            3 => self.network.cut(process, member, false, self.draw(200, 3_000) * MS),
            4 => self.network.stall(process, member, true, self.draw(50, 1_500) * MS),
            5 => self.network.stall(process, member, false, self.draw(50, 1_500) * MS),
            6 | 7 => self.crash(member),
            8 => self.fail_in_commit(member),
            9 => self.members[member].pause(self.world.now() + self.draw(100, 3_000) * MS),
            10 => {
                let ms = self.draw(100, 5_000);
                self.world.pause(process, ms * MS);
            }
            11 => {
                let ms = i64::try_from(self.draw(0, 7_200_000)).unwrap_or(0) - 3_600_000;
                self.members[member].jump_clock(ms);
                self.platforms[process - 1].jump_clock(-ms);
            }
            12 => self.fill(member),
            _ => self.restore(member),
        }
    }

    /// The power of a member fails. Clients hear of it now or later.
    fn crash(self: &Arc<Self>, member: usize) {
        if self.members[member].partition().is_none() || self.down() > 1 {
            return;
        }
        self.world.note(10, || format!("member {member} crashes"));
        self.members[member].crash();
        for process in 1..=self.platforms.len() {
            if self.world.chance(|chance| chance.once_in(4)) {
                self.later(self.draw(50, 1_500), move |nemesis| nemesis.network.break_link(process, member));
            } else {
                self.network.break_link(process, member);
            }
        }
        self.later(self.draw(50, 3_000), move |nemesis| nemesis.start(member));
    }

    /// The power fails in the middle of a commit, or shortly after.
    fn fail_in_commit(self: &Arc<Self>, member: usize) {
        self.members[member].disk.fail_in(self.draw(0, 2));
        self.later(self.draw(1, 100), move |nemesis| nemesis.crash(member));
    }

    fn down(&self) -> usize {
        self.members.iter().filter(|member| member.partition().is_none()).count()
    }

    fn start(&self, member: usize) {
        if self.members[member].partition().is_none() {
            self.world.note(11, || format!("member {member} starts"));
            self.members[member].start(member);
        }
    }

    /// The disk has no room for a while.
    fn fill(self: &Arc<Self>, member: usize) {
        self.members[member].disk.set_full(true);
        self.later(self.draw(100, 1_500), move |nemesis| nemesis.members[member].disk.set_full(false));
    }

    /// An image of the disk is taken now and put back later, once in a run: that is the loss of one member.
    fn restore(self: &Arc<Self>, member: usize) {
        if self.members.iter().any(Member::was_restored) || self.members[member].partition().is_none() {
            return;
        }
        self.members[member].keep_image();
        self.later(self.draw(500, 4_000), move |nemesis| {
            let one = &nemesis.members[member];
            if nemesis.is_calm()
                || one.partition().is_none()
                || nemesis.members.iter().any(Member::was_restored)
            {
                return;
            }
            one.crash();
            for process in 1..=nemesis.platforms.len() {
                nemesis.network.break_link(process, member);
            }
            nemesis.world.note(12, || format!("the disk of member {member} is put back"));
            one.start_restored(member);
        });
    }
}
