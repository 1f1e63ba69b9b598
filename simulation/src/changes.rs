//! Changes of CKA_ID that are sent again (HA 2.3): at a member where another change was carried out since, they are left.
//!
//! One that was carried out unheard is carried out again at a member that has neither it nor what another process has made
//! of it meanwhile: it shows, the other one shows, and it shows again (docs/rules/STATUS.md). Its value tells nothing about
//! the order of changes then.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec::AttributeType as A;
use spec::messages::SetAttributes;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Changes(Mutex<State>);

#[derive(Default)]
struct State {
    /// When each change was first carried out, by its tag.
    begun: BTreeMap<Vec<u8>, u64>,
    /// The changes that a member has carried out on an object, in their order.
    carried_out: BTreeMap<(usize, Vec<u8>), Vec<CarriedOut>>,
    /// The tags of changes that were carried out.
    done: BTreeSet<Vec<u8>>,
    /// The values of changes that were carried out more than once.
    again: BTreeSet<u64>,
}

struct CarriedOut {
    at: u64,
    tag: Vec<u8>,
}

impl Changes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change has come to a member, and was `done` there or left; what is wrong with that. A first send that comes late
    /// cannot be told from a new change.
    pub(crate) fn comes(
        &self,
        member: usize,
        set: &SetAttributes,
        (attempt, now): (u32, u64),
        done: bool,
    ) -> Option<String> {
        let attributes = set.template.iter().flat_map(|template| &template.attributes);
        let id = attributes.into_iter().find(|attribute| attribute.number == A::ID.0)?;
        let value = u64::from_be_bytes(id.value.as_slice().try_into().ok()?);
        let mut state = self.state();
        if !done {
            // Who did not know the object has begun nothing: the next one that is asked may carry it out over all that is there.
            return None;
        }
        let begun = *state.begun.entry(set.tag.clone()).or_insert(now);
        if !state.done.insert(set.tag.clone()) {
            state.again.insert(value);
        }
        let place = (member, set.object.as_ref()?.ouid.clone());
        let others = state.carried_out.entry(place).or_default();
        let over = attempt > 0 && others.iter().any(|other| other.at > begun && other.tag != set.tag);
        others.push(CarriedOut { at: now, tag: set.tag.clone() });
        over.then(|| format!("member {member} has set CKA_ID to {value} again, over a later change (HA 2.3)"))
    }

    /// Whether a value may have shown twice.
    pub(crate) fn was_made_again(&self, value: u64) -> bool {
        self.state().again.contains(&value)
    }
}
