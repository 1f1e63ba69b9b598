//! What the application does with PINs: logs in, changes the PIN, gives a wrong one (HA 2.7, 4.2; RULES 2.5).
use std::sync::atomic::Ordering;

use client::Error;
use spec::{HandleSession, Rv, UserType};

use crate::breaks::{Break, Breaks, Worth};
use crate::history::is_logged_out;
use crate::members::{MEMBERS, caller};
use crate::network::MS;
use crate::workload::Process;

/// So often a thread tries to log in before it gives up, and how long it waits before the next time.
const LOGINS_MAX: usize = 60;
const AGAIN_MS: u64 = 200;

impl Process {
    /// Logs in unless the process is; false when that could not be done for long.
    pub(crate) fn log_in(&self, session: HandleSession) -> bool {
        let mut wrong = 0;
        for _ in 0..LOGINS_MAX {
            let pin = {
                let pins = self.history.pins();
                pins.candidates[wrong % pins.candidates.len()].clone()
            };
            self.logins.fetch_add(1, Ordering::Relaxed);
            let answer = self.timed("C_Login", || self.module.login(session, UserType::USER, Some(&pin)));
            self.logins.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(()) | Err(Error::Rv(Rv::USER_ALREADY_LOGGED_IN)) => return true,
                Err(Error::Rv(Rv::PIN_LOCKED)) => {}
                Err(Error::Rv(Rv::PIN_INCORRECT)) if self.history.pins().changed => wrong += 1,
                Err(error) if self.is_excused(&error) => {}
                Err(error) => {
                    self.world.fail(format!("C_Login with the right PIN answered: {error}"));
                    return false;
                }
            }
            if self.world.is_judged() {
                return false;
            }
            self.world.sleep(AGAIN_MS * MS);
        }
        false
    }

    /// Logs out and in, since the ticket may have been ended.
    pub(crate) fn log_in_again(&self) {
        let session = self.open_session();
        let answer = self.timed("C_Logout", || self.module.logout(session));
        if let Err(error) = answer
            && !is_logged_out(&error)
        {
            self.world.fail(format!("C_Logout answered: {error}"));
        }
        // Somebody tells the application which PIN it is at last; one locked out for wrong PINs waits, or leaves it to others.
        self.history.pins().candidates.insert(0, self.network.watch().pin(u64::MAX));
        let _ = (0..4).any(|_| self.log_in(session));
    }

    /// One call that gives a PIN at a time, in all processes.
    fn alone(&self, call: impl FnOnce()) {
        if !std::mem::replace(&mut self.history.pins().busy, true) {
            call();
            self.history.pins().busy = false;
        }
    }

    /// Changes the PIN; whether the new one or the old one holds after an unknown outcome only a login tells.
    pub(crate) fn set_pin(&self, session: HandleSession) {
        self.alone(|| {
            let old = self.history.pins().candidates[0].clone();
            let new = format!("pin-{:08}", self.history.value()).into_bytes();
            self.history.pins().changed = true;
            let answer = self.timed("C_SetPIN", || self.module.set_pin(session, Some(&old), Some(&new)));
            let mut pins = self.history.pins();
            match answer {
                Ok(()) => pins.candidates = vec![new],
                Err(Error::Rv(Rv::PIN_INCORRECT)) => pins.candidates.rotate_left(1),
                Err(Error::Rv(Rv::PIN_LOCKED) | Error::BelowMinimum(_)) => {}
                Err(error) if self.is_excused(&error) => {
                    self.unheard.fetch_add(1, Ordering::Relaxed);
                    pins.candidates.insert(0, new);
                }
                Err(error) => self.world.fail(format!("C_SetPIN answered: {error}")),
            }
        });
    }

    /// Gives a wrong PIN to the home: that spends one try, however often the request is sent (HA 4.2). A member that was
    /// started meanwhile knows no longer which try it has counted, and one that has become the home meanwhile counts it as
    /// well; so do those that were home before and do not know yet that they are it no more. A request of an earlier call that
    /// nobody has heard of may be carried out now.
    pub(crate) fn give_wrong_pin(&self, session: HandleSession) {
        self.alone(|| {
            self.may_lose_the_answer();
            let (logins, before, lives) = (self.logins.load(Ordering::Relaxed), self.tries(), self.lives());
            let (manifest, late) = (self.manifest_epoch(), self.unheard.load(Ordering::Relaxed));
            let homes = self.homes();
            let mut unheard = false;
            let answer = self.timed("C_SetPIN with a wrong PIN", || {
                self.module.set_pin(session, Some(b"never-this"), Some(b"never-that"))
            });
            match answer {
                Ok(()) => self.world.fail("a wrong PIN was taken".into()),
                Err(Error::Rv(Rv::PIN_INCORRECT | Rv::PIN_LOCKED)) => {}
                Err(error) if self.is_excused(&error) => unheard = true,
                Err(error) => self.world.fail(format!("C_SetPIN with a wrong PIN answered: {error}")),
            }
            let spent = (self.tries() - before) as u64;
            let alone = logins.is_multiple_of(2) && logins == self.logins.load(Ordering::Relaxed);
            // Two at most, whatever became of the home (HA 4.2).
            let homes = (homes + u64::from(manifest != self.manifest_epoch())).min(2);
            let more = spent.saturating_sub(homes + self.lives() - lives);
            if alone && more > late {
                self.world.fail(format!("one wrong PIN has spent {spent} tries (HA 4.2)"));
            } else if alone {
                // Each of them is carried out late once.
                self.unheard.fetch_sub(more, Ordering::Relaxed);
            }
            self.unheard.fetch_add(u64::from(unheard), Ordering::Relaxed);
        });
    }

    /// Where PINs are what the run is about, the home's answer to one is often lost: a run gives few wrong PINs that are
    /// counted, and chance alone would seldom meet one.
    fn may_lose_the_answer(&self) {
        if self.theme.is_about_pins() && self.world.chance(|chance| chance.once_in(3)) {
            let breaks = Breaks { how: Break::Plain, of: Worth::Pin };
            (0..MEMBERS).for_each(|member| self.network.break_before_reply(self.number, member, breaks));
        }
    }

    /// PIN tries of this process that were ever counted.
    fn tries(&self) -> usize {
        let client = caller(self.number).client;
        self.members.iter().map(|member| member.disk.tries_counted(&client)).sum()
    }

    /// The version of the newest manifest that a member which is up knows of.
    fn manifest_epoch(&self) -> u64 {
        let up = self.members.iter().filter_map(|member| member.partition());
        up.map(|partition| partition.manifest().epoch).max().unwrap_or(0)
    }

    /// How many of the members that are up take themselves for the home; one at least.
    fn homes(&self) -> u64 {
        let up = self.members.iter().filter_map(|member| member.partition());
        let homes = up.filter(|partition| partition.manifest().home == partition.serial());
        (homes.count() as u64).max(1)
    }

    fn lives(&self) -> u64 {
        self.members.iter().map(|member| member.life()).sum()
    }
}
