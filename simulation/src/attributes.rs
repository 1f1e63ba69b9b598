//! What the application does with attributes: CKA_EXTRACTABLE goes one way, CKA_ID is a register (HA 1.3, 2.3, 3.4).
use spec::{Attribute, AttributeType as A, HandleSession, Rv, Template};

use crate::history::{Fate, Object, is_gone};
use crate::register::{Seen, contradiction};
use crate::workload::{Process, name};

impl Process {
    /// What became of a change, and whether it was sent more than once.
    fn change(
        &self,
        session: HandleSession,
        what: &str,
        place: usize,
        wanted: Vec<Attribute>,
    ) -> (Fate, bool) {
        let before = self.history.get(place);
        let Some(handle) = self.handle(&before) else { return (Fate::Failed, false) };
        let (answer, sends) =
            self.counted(what, || self.module.set_attributes(session, handle, Template::from(wanted)));
        self.drop_handle(place, &answer);
        (self.fate_of_change(what, place, &before, &answer), sends.changes > 1)
    }

    fn fate_of_change(&self, what: &str, place: usize, before: &Object, answer: &client::Result<()>) -> Fate {
        match answer {
            Ok(()) => Fate::Done,
            Err(error) if is_gone(error) && !self.history.get(place).is_there() => Fate::Failed,
            Err(error) if self.is_excused(error) => Fate::Unknown,
            Err(client::Error::Rv(Rv::ATTRIBUTE_READ_ONLY))
                if self.history.get(place).harden != Fate::Not =>
            {
                Fate::Failed
            }
            Err(error) => {
                self.failed(format!("{what} of {} answered: {error}", name(before)), error);
                Fate::Unknown
            }
        }
    }

    /// Sets CKA_EXTRACTABLE to false.
    pub(crate) fn harden(&self, session: HandleSession) {
        let Some(place) = self.held(|object| object.is_there() && object.harden != Fate::Done) else {
            return;
        };
        self.history.set(place, |object| {
            if object.harden == Fate::Not {
                object.harden = Fate::Running;
            }
        });
        let (fate, _) = self.change(session, "harden", place, vec![Attribute::bool(A::EXTRACTABLE, false)]);
        self.history.set(place, |object| {
            if fate == Fate::Done {
                object.hardened.push(self.number);
            }
            if object.harden != Fate::Done {
                object.harden = if fate == Fate::Failed { Fate::Unknown } else { fate };
            }
        });
    }

    /// Sets CKA_ID to what nobody has set it to before.
    pub(crate) fn rename(&self, session: HandleSession) {
        let Some(place) = self.held(|object| object.is_there()) else { return };
        let (value, begun) = (self.history.value(), self.world.now());
        // Now and then CKA_EXTRACTABLE is written as it was made: refused by whoever knows that it was set to false.
        let mut wanted = vec![Attribute::new(A::ID, value.to_be_bytes().to_vec())];
        let hardened = self.history.get(place).hardened.contains(&self.number);
        if !hardened && self.world.chance(|chance| chance.once_in(2)) {
            wanted.push(Attribute::bool(A::EXTRACTABLE, true));
        }
        self.world.note(3, || format!("process {} sets CKA_ID of object {place} to {value}", self.number));
        let (fate, resent) = self.change(session, "rename", place, wanted);
        // What was resent may have been left to a writer at the same time (HA 2.3), while the first send, carried out
        // elsewhere and not heard of, comes with the later stamp: it may still show (docs/rules/STATUS.md).
        let ended = if fate == Fate::Done && !resent { self.world.now() } else { u64::MAX };
        if fate != Fate::Failed {
            self.history.saw_id(place, self.number, Seen { value, begun, ended });
        }
    }

    /// Reads both.
    pub(crate) fn read(&self, session: HandleSession) {
        let Some(place) = self.held(|object| object.create == Fate::Done) else { return };
        let (before, begun) = (self.history.get(place), self.world.now());
        let Some(handle) = self.handle(&before) else { return };
        let answer =
            self.timed("read", || self.module.get_attributes(session, handle, &[A::EXTRACTABLE, A::ID]));
        self.drop_handle(place, &answer);
        let after = self.history.get(place);
        match answer {
            Ok(values) => {
                let value =
                    |at: usize| values.get(at).and_then(|value| value.as_ref().ok().map(|v| v.to_vec()));
                if before.hardened.contains(&self.number) && value(0) != Some(vec![0]) {
                    self.contradicts(format!("{} is extractable again", name(&before)));
                }
                if before.is_gone() && before.process == self.number && !before.inherited {
                    self.contradicts(format!("{} was read after its end", name(&before)));
                }
                let id = value(1).unwrap_or_default();
                let value = if id.is_empty() { Some(0) } else { id.try_into().ok().map(u64::from_be_bytes) };
                let Some(value) = value else {
                    return self.world.fail(format!("{} has a CKA_ID that nobody has set", name(&before)));
                };
                self.world
                    .note(3, || format!("process {} reads CKA_ID of object {place}: {value}", self.number));
                self.history.saw_id(place, self.number, Seen { value, begun, ended: self.world.now() });
            }
            Err(error) if is_gone(&error) && !after.is_there() => {}
            Err(error) if self.is_excused(&error) => {}
            Err(error) => self.failed(format!("reading {} answered: {error}", name(&before)), &error),
        }
    }

    /// What this process saw of each CKA_ID is the history of one register, whatever was changed of the object besides and
    /// however the clocks run apart. A process that reached fewer than two members at some moment, or a member that has lost
    /// its store, may have been shown what is older (HA 3.1, 4.6).
    pub(crate) fn check_registers(&self) {
        if self.restored() > 0 || self.network.was_lonely(self.number) {
            return;
        }
        for object in self.history.objects().iter() {
            let mut seen = vec![Seen { value: 0, begun: 0, ended: 0 }];
            let all = object.ids.get(&self.number).into_iter().flatten();
            seen.extend(all.filter(|one| !self.network.books().changes.was_made_again(one.value)));
            if let Some((value, other)) = contradiction(&seen) {
                self.world.fail(format!(
                    "CKA_ID of {} was {other} while it was {value}, as process {} saw it",
                    name(object),
                    self.number
                ));
            }
        }
    }
}
