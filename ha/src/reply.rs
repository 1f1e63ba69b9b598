//! Replies as they are read: where they came, for a use; decoded, for all else.
use std::ops::Deref;

use prost::Message;
use spec::messages::{Answer, Outcome, ReplyBody, UseAnswer, use_answer};
use spec::wipe::wipe;
use zeroize::Zeroizing;

use crate::output::{Output, Used};

/// A reply that was read.
#[derive(Default)]
pub(crate) struct Reply {
    /// All of it, but what a use gave.
    pub(crate) body: ReplyBody,
    /// What a use gave.
    pub(crate) used: Option<Used>,
}

impl Deref for Reply {
    type Target = ReplyBody;

    fn deref(&self) -> &ReplyBody {
        &self.body
    }
}

impl Reply {
    /// Reads a reply into the room of an earlier one, and answers the memory of its bytes when it is of no more use. The output
    /// of a use stays in it. A reply that cannot be read counts as a failure of the member.
    pub(crate) fn read(&mut self, mut bytes: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
        let Some((output, state)) = use_answer(&bytes) else {
            self.decode(&bytes);
            return Some(bytes);
        };
        let body = &mut self.body;
        (body.outcome, body.rv, body.answer) = (Outcome::OK.0, 0, None);
        body.object.clear();
        body.text.clear();
        let state = bytes[state].to_vec();
        wipe(&mut bytes[output.end..]);
        bytes.truncate(output.end);
        // A verdict leaves the memory to the next reply.
        let (output, spare) = match output.is_empty() {
            true => (Output::default(), Some(bytes)),
            false => (Output::behind(output.start, bytes), None),
        };
        self.used = Some(Used { output, state });
        spare
    }

    /// Reads what is not the answer to a use, or only the codec of all others can read.
    #[cold]
    fn decode(&mut self, bytes: &[u8]) {
        self.used = None;
        self.body = ReplyBody::decode(bytes).unwrap_or_else(|error| ReplyBody {
            outcome: Outcome::FAILED.0,
            text: format!("its reply cannot be read ({error}): is it of a later release?"),
            ..ReplyBody::default()
        });
        if let Some(Answer::Use(answer)) = &mut self.body.answer {
            let output = Zeroizing::new(std::mem::take(&mut answer.output)).into();
            self.used = Some(Used { output, state: std::mem::take(&mut answer.state) });
            self.body.answer = None;
        }
    }

    /// The answer as a message, if it has one.
    pub(crate) fn into_answer(self) -> Option<Answer> {
        match self.used {
            Some(Used { output, state }) => {
                let output = std::mem::take(&mut *output.into_front());
                Some(Answer::Use(UseAnswer { output, state }))
            }
            None => self.body.answer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn encoded(answer: Answer) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(ReplyBody { answer: Some(answer), ..ReplyBody::default() }.encode_to_vec())
    }

    fn use_of(output: &[u8], state: &[u8]) -> Answer {
        Answer::Use(UseAnswer { output: output.to_vec(), state: state.to_vec() })
    }

    #[test]
    fn the_output_of_a_use_stays_where_it_came() {
        let mut reply = Reply::default();
        for (output, state) in
            [(vec![7; 64], vec![]), (vec![7; 1 << 20], vec![]), (vec![7; 300], vec![5; 90])]
        {
            let bytes = encoded(use_of(&output, &state));
            let memory = bytes.as_ptr_range();
            assert!(reply.read(bytes).is_none());
            assert_eq!(reply.outcome, Outcome::OK.0);
            let used = reply.used.take().unwrap();
            assert!(memory.contains(&used.output.as_ptr()), "no copy");
            assert_eq!((&*used.output, &used.state), (output.as_slice(), &state));
            let whole = used.output.into_memory();
            assert!(!whole.contains(&5), "the state is not left behind it");
        }
    }

    #[test]
    fn a_verdict_and_all_that_is_no_use_leave_their_memory_to_the_next_reply() {
        let mut reply = Reply::default();
        assert!(reply.read(encoded(use_of(&[], &[]))).is_some());
        assert_eq!(reply.used.take().map(|used| used.output.len()), Some(0));
        reply.read(encoded(use_of(&[1; 9], &[])));
        let refused = ReplyBody { outcome: Outcome::FAILED.0, text: "no".to_owned(), ..ReplyBody::default() };
        assert!(reply.read(Zeroizing::new(refused.encode_to_vec())).is_some());
        assert!(reply.used.is_none() && reply.body == refused, "nothing is left of the one before");
        reply.read(encoded(use_of(&[1; 9], &[])));
        assert_eq!((reply.outcome, reply.text.as_str()), (Outcome::OK.0, ""));
        reply.read(Zeroizing::new(vec![0xff; 5]));
        assert!(reply.used.is_none() && reply.text.contains("cannot be read"));
    }

    #[test]
    fn a_use_is_the_same_whoever_has_encoded_it() {
        // The fields in another order, which no encoder of ours writes.
        let inside = [[0x12, 1, 5].as_slice(), &[0x0a, 2, 7, 7]].concat();
        let bytes = [[14 << 3 | 2, 7].as_slice(), &inside].concat();
        let mut reply = Reply::default();
        assert!(use_answer(&bytes).is_none());
        assert!(reply.read(Zeroizing::new(bytes)).is_some());
        let used = reply.used.take().unwrap();
        assert_eq!((&*used.output, used.state.as_slice()), ([7, 7].as_slice(), [5].as_slice()));
        assert!(reply.answer.is_none());
    }

    #[test]
    fn a_use_becomes_a_message_again_for_who_wants_one() {
        for answer in [use_of(&[7; 300], &[5; 90]), use_of(&[], &[])] {
            let mut reply = Reply::default();
            reply.read(encoded(answer.clone()));
            assert!(reply.into_answer() == Some(answer));
        }
    }
}
