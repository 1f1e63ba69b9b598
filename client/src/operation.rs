//! The cell of one operation of one kind in one session, and the one function that decides when an operation ends.
//!
//! ```text
//!            Init                        Update, length query, too small, outage
//!   idle ------------> active <----------------------------------------.
//!    ^                   |  taken by one thread (holder = fork epoch)    |
//!    |                   '---------------> busy -------------------------'
//!    |                                      |
//!    '----- final call or error ------------'
//!
//!   a second thread that finds it busy hears CKR_OPERATION_ACTIVE and changes nothing
//!   busy of an older fork epoch: its thread is not in this process; the cell is idle
//!   active and stalled (after a total outage): Init replaces it (RULES 1.3)
//! ```
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::atomic::AtomicCell;
use spec::Rv;

use crate::atoms::{Nook, Word};
use crate::error::{Error, Result};
use crate::face::Produced;

/// What lies in a cell.
pub(crate) struct Held<T> {
    /// None between two operations: the memory stays for the next one.
    operation: Option<T>,
    /// The last call met a total outage: Init may replace the operation (RULES 1.3).
    /// DEVIATION: docs/adr/0006-deviations.md, item 2.
    stalled: bool,
}

/// Holds at most one operation.
pub(crate) struct Cell<T, W: Word = AtomicU64, N: Nook<Held<T>> = AtomicCell<Option<Box<Held<T>>>>> {
    /// 0, or the fork epoch of the thread that has taken the cell.
    holder: W,
    /// One pointer, swapped atomically.
    held: N,
    of: PhantomData<T>,
}

impl<T, W: Word, N: Nook<Held<T>>> Default for Cell<T, W, N> {
    fn default() -> Self {
        Self { holder: W::new(0), held: N::empty(), of: PhantomData }
    }
}

impl<T, W: Word, N: Nook<Held<T>>> Cell<T, W, N> {
    /// Takes the cell for one call.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE while another thread of this process has it.
    pub(crate) fn take(&self, epoch: u64) -> Result<Taken<'_, T, W, N>> {
        let free = |holder: u64| (holder != epoch).then_some(epoch);
        self.holder.update(free).map_err(|_| Error::Rv(Rv::OPERATION_ACTIVE))?;
        Ok(Taken { cell: self, held: self.held.take(), in_use: false })
    }

    /// Ends the operation whatever its state: what C_SessionCancel and an Init without a mechanism ask for
    /// (PKCS #11 v3.1, 5.6.6 and 5.8.1).
    ///
    /// # Errors
    /// CKR_OPERATION_CANCEL_FAILED while another thread of this process has it.
    pub(crate) fn cancel(&self, epoch: u64) -> Result<()> {
        let mut taken = self.take(epoch).map_err(|_| Error::Rv(Rv::OPERATION_CANCEL_FAILED))?;
        taken.end();
        Ok(())
    }
}

/// A cell that this thread has taken; dropping it gives the cell back.
pub(crate) struct Taken<'a, T, W: Word = AtomicU64, N: Nook<Held<T>> = AtomicCell<Option<Box<Held<T>>>>> {
    cell: &'a Cell<T, W, N>,
    held: Option<Box<Held<T>>>,
    /// The operation has been handed out and its call has not settled.
    in_use: bool,
}

impl<T, W: Word, N: Nook<Held<T>>> Taken<'_, T, W, N> {
    /// Whether Init may put a new operation in.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE when one is there that no outage has stalled.
    pub(crate) fn check_idle(&self) -> Result<()> {
        match &self.held {
            Some(held) if held.operation.is_some() && !held.stalled => Err(Rv::OPERATION_ACTIVE.into()),
            _ => Ok(()),
        }
    }

    /// Puts a new operation in, in place of a stalled one.
    pub(crate) fn begin(&mut self, operation: T) {
        match &mut self.held {
            Some(held) => **held = Held { operation: Some(operation), stalled: false },
            None => self.held = Some(Box::new(Held { operation: Some(operation), stalled: false })),
        }
    }

    /// Whether there is an operation.
    pub(crate) fn is_active(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.operation.is_some())
    }

    /// The operation, for a call that ends with [`Taken::settle`]; one that does not (a panic) ends the operation.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED when there is none.
    pub(crate) fn operation(&mut self) -> Result<&mut T> {
        let operation = self.held.as_mut().and_then(|held| held.operation.as_mut());
        let operation = operation.ok_or(Rv::OPERATION_NOT_INITIALIZED)?;
        self.in_use = true;
        Ok(operation)
    }

    /// Ends the operation if this outcome of a call ends it. `last` says whether success of the call does.
    pub(crate) fn settle<O: Outcome>(&mut self, outcome: Result<O>, last: bool) -> Result<O> {
        self.in_use = false;
        if ends(&outcome, last) {
            self.end();
        } else if let Some(held) = &mut self.held {
            held.stalled = matches!(outcome, Err(Error::Outage(_) | Error::Undecided(_)));
        }
        outcome
    }
}

impl<T, W: Word, N: Nook<Held<T>>> Taken<'_, T, W, N> {
    /// Drops the operation and keeps its memory.
    fn end(&mut self) {
        if let Some(held) = &mut self.held {
            held.operation = None;
        }
    }
}

impl<T, W: Word, N: Nook<Held<T>>> Drop for Taken<'_, T, W, N> {
    fn drop(&mut self) {
        // A panic may have left an operation in use half changed: it ends.
        if !self.in_use {
            self.cell.held.leave(self.held.take());
        }
        self.cell.holder.store(0, Ordering::Release);
    }
}

/// What a successful call gave, seen by the rule of the end.
pub(crate) trait Outcome {
    /// Whether nothing but a length was told.
    fn is_question(&self) -> bool;
}

impl Outcome for () {
    fn is_question(&self) -> bool {
        false
    }
}

impl Outcome for Produced {
    fn is_question(&self) -> bool {
        match self {
            Produced::Length(_) | Produced::TooSmall(_) => true,
            Produced::Bytes(_) => false,
        }
    }
}

/// The end of an operation (RULES 1.3; PKCS #11 v3.1, 5.12.2, 5.13.2): every error ends it but a total outage; a length
/// query and CKR_BUFFER_TOO_SMALL do not. A second thread hears CKR_OPERATION_ACTIVE from `take` and never comes here.
fn ends<O: Outcome>(outcome: &Result<O>, last: bool) -> bool {
    match outcome {
        Ok(produced) => last && !produced.is_question(),
        Err(Error::Outage(_) | Error::Undecided(_)) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn ended_by<O: Outcome>(outcome: Result<O>, last: bool) -> bool {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        let _ = cell.take(1).unwrap().settle(outcome, last);
        !cell.take(1).unwrap().is_active()
    }

    #[test]
    fn the_end_of_an_operation_is_decided_by_one_table() {
        let bytes = || Ok(Produced::Bytes(Zeroizing::new(vec![1]).into()));
        assert!(ended_by(bytes(), true));
        assert!(!ended_by(bytes(), false));
        assert!(!ended_by(Ok(Produced::Length(1)), true));
        assert!(!ended_by(Ok(Produced::TooSmall(1)), true));
        assert!(ended_by(Ok(()), true));
        assert!(!ended_by::<()>(Err(Error::Outage(String::new())), true));
        assert!(!ended_by::<()>(Err(Error::Undecided(String::new())), true));
        assert!(ended_by::<()>(Err(Error::Late(String::new())), true));
        for rv in [
            Rv::OPERATION_NOT_INITIALIZED,
            Rv::DATA_LEN_RANGE,
            Rv::SIGNATURE_INVALID,
            Rv::KEY_HANDLE_INVALID,
            Rv::USER_NOT_LOGGED_IN,
        ] {
            assert!(ended_by::<()>(Err(rv.into()), false), "{rv}");
        }
    }

    #[test]
    fn a_second_thread_hears_operation_active_and_changes_nothing() {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        let first = cell.take(1).unwrap();
        assert_eq!(cell.take(1).err().unwrap().rv(), Rv::OPERATION_ACTIVE);
        drop(first);
        assert!(cell.take(1).unwrap().is_active());
    }

    #[test]
    fn an_operation_is_cancelled_unless_another_thread_is_in_it() {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        let first = cell.take(1).unwrap();
        assert_eq!(cell.cancel(1).err().unwrap().rv(), Rv::OPERATION_CANCEL_FAILED);
        drop(first);
        assert!(cell.take(1).unwrap().is_active());
        cell.cancel(1).unwrap();
        assert!(!cell.take(1).unwrap().is_active());
        cell.cancel(1).unwrap();
    }

    #[test]
    fn an_operation_that_was_busy_at_a_fork_is_gone_in_the_child() {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        let taken_by_a_thread_of_the_parent = cell.take(1).unwrap();
        let mut child = cell.take(2).unwrap();
        assert_eq!(child.operation().err().unwrap().rv(), Rv::OPERATION_NOT_INITIALIZED);
        drop(child);
        std::mem::forget(taken_by_a_thread_of_the_parent);
    }

    #[test]
    fn a_call_that_never_settles_ends_the_operation() {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        assert_eq!(*cell.take(1).unwrap().operation().unwrap(), 7);
        assert!(!cell.take(1).unwrap().is_active());
    }

    #[test]
    fn only_a_stalled_operation_is_replaced_by_init() {
        let cell: Cell<_> = Cell::default();
        cell.take(1).unwrap().begin(7);
        assert!(cell.take(1).unwrap().check_idle().is_err());
        let _ = cell.take(1).unwrap().settle::<()>(Err(Error::Outage(String::new())), true);
        assert!(cell.take(1).unwrap().check_idle().is_ok());
    }
}
