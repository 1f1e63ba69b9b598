//! Processes that fork in mid-call, and random bytes (HA 6, 8).
//!
//! ```text
//! parent: threads  a  b  tender        a forks between two of its calls, b and tender stand still wherever they are,
//! child:           a                   with whatever locks they hold; a goes on in their image, as its first thread
//! ```
//! One image cannot go on in two places here: the parent does nothing any more once it has forked, as a program that puts
//! itself into the background. What it would have drawn from its buffers is known all the same: what members gave it.
use spec::HandleSession;

use crate::run::CHILD;
use crate::workload::Process;

/// Bytes of one draw.
const DRAW_BYTES: usize = 32;

impl Process {
    /// The caller's thread forks, and is the child from now on.
    pub(crate) fn fork(&self) {
        self.world.note(17, || format!("process {} forks", self.number));
        self.world.become_process(CHILD);
        self.world.freeze(self.number);
        self.platform.forked(CHILD);
        self.network.forked(self.number);
        self.history.forked(self.number);
        self.module.forked();
    }

    /// Nothing random twice: no eight bytes come again, in any process, and none that a member gave to the parent are handed
    /// out by its child: the parent has them too. The system's bytes, which cover them, are taken off for that.
    pub(crate) fn draw(&self, session: HandleSession) {
        match self.timed("C_GenerateRandom", || self.module.random(session, DRAW_BYTES)) {
            Ok(bytes) => {
                if !self.history.are_new(&bytes) {
                    let what = format!("process {} drew random bytes that were drawn before", self.number);
                    self.world.fail(what);
                }
                let systems = self.platform.last_drawn();
                let members: Vec<u8> = bytes.iter().zip(&systems).map(|(byte, own)| byte ^ own).collect();
                if members.len() == DRAW_BYTES
                    && self.network.watch().were_given_before_a_fork(self.number, &members)
                {
                    self.world.fail(format!(
                        "the forked child of process {} drew random bytes that its parent holds (HA 6)",
                        self.number
                    ));
                }
            }
            Err(error) if self.is_excused(&error) => {}
            Err(error) => self.world.fail(format!("C_GenerateRandom answered: {error}")),
        }
    }
}
