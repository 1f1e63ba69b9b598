//! The shapes of answers that C knows, each rule written once: one value, a list, a buffer, bytes in place.
//!
//! Each checks its pointers first, then runs the call that makes the answer, then writes. So a call with bad pointers
//! changes nothing.

use client::{Entered, Error, Module, Produced, Room};
use cryptoki_sys::{CK_BYTE, CK_SESSION_HANDLE, CK_ULONG};
use spec::{HandleSession, Rv};
use zeroize::Zeroizing;

use super::convert::{ToC, session, ulong};
use super::pointer::{Caller, element};

/// Most bytes asked of the module at once for an answer without an operation.
const CHUNK_BYTES: usize = 64 << 10;

impl Caller {
    /// Answers one value.
    pub(super) fn fill<C, T: ToC<C>>(
        &self,
        place: *mut C,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<(), Error> {
        let target = self.target(place)?;
        target.set(make()?.to_c());
        Ok(())
    }

    /// Answers two values that are made together.
    pub(super) fn fill_pair<C, T: ToC<C>>(
        &self,
        first: *mut C,
        second: *mut C,
        make: impl FnOnce() -> Result<(T, T), Error>,
    ) -> Result<(), Error> {
        let (first, second) = (self.target(first)?, self.target(second)?);
        let (one, two) = make()?;
        first.set(one.to_c());
        second.set(two.to_c());
        Ok(())
    }

    /// Answers a list: its length when `place` is NULL, else the list if the application has room for all of it
    /// (`CKR_BUFFER_TOO_SMALL` with the length otherwise).
    pub(super) fn list<C, T: ToC<C>>(
        &self,
        place: *mut C,
        count: *mut CK_ULONG,
        make: impl FnOnce() -> Result<Vec<T>, Error>,
    ) -> Result<(), Error> {
        let target = self.target(count)?;
        let items = make()?;
        let room = if place.is_null() { None } else { Some(self.value(count)?) };
        let needed = ulong(items.len());
        target.set(needed);
        match room {
            None => Ok(()),
            Some(room) if room < needed => Err(Rv::BUFFER_TOO_SMALL.into()),
            Some(_) => self.write_items(place, items),
        }
    }

    /// Answers as many items as there are, at most `count_max`, and how many (`C_FindObjects`).
    pub(super) fn list_up_to<C, T: ToC<C>>(
        &self,
        place: *mut C,
        count_max: CK_ULONG,
        count: *mut CK_ULONG,
        make: impl FnOnce(usize) -> Result<Vec<T>, Error>,
    ) -> Result<(), Error> {
        let target = self.target(count)?;
        if count_max > 0 {
            self.target(place)?;
        }
        let count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        let mut items = make(count_max)?;
        items.truncate(count_max);
        target.set(ulong(items.len()));
        self.write_items(place, items)
    }

    fn write_items<C, T: ToC<C>>(&self, place: *mut C, items: Vec<T>) -> Result<(), Error> {
        for (index, item) in items.into_iter().enumerate() {
            self.target(element(place, index))?.set(item.to_c());
        }
        Ok(())
    }

    /// Answers bytes of an operation by the length rule (PKCS #11 v3.1, 5.2): the length when `place` is NULL, else
    /// the bytes if they fit (`CKR_BUFFER_TOO_SMALL` with the length otherwise). What fits is the module's decision
    /// (RULES 1.2).
    pub(super) fn output(
        &self,
        place: *mut CK_BYTE,
        length: *mut CK_ULONG,
        make: impl FnOnce(Room) -> Result<Produced, Error>,
    ) -> Result<(), Error> {
        let target = self.target(length)?;
        let room_bytes = usize::try_from(self.value(length)?).unwrap_or(usize::MAX);
        let room = if place.is_null() { Room::Ask } else { Room::Bytes(room_bytes) };
        match make(room)? {
            Produced::Length(needed) => target.set(ulong(needed)),
            Produced::TooSmall(needed) => {
                target.set(ulong(needed));
                return Err(Rv::BUFFER_TOO_SMALL.into());
            }
            Produced::Bytes(bytes) => {
                self.copy_out(place, room_bytes, &bytes)?;
                target.set(ulong(bytes.len()));
                client::give_back(bytes);
            }
        }
        Ok(())
    }

    /// Runs a function of an operation in a session, and ends the operation when its arguments were bad: every error
    /// does but those that RULES 1.3 names, and the module has not seen this one.
    pub(super) fn operate(
        &self,
        module: &Module<Entered>,
        function: u64,
        handle: CK_SESSION_HANDLE,
        body: impl FnOnce(HandleSession) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let result = body(session(handle));
        if result.as_ref().is_err_and(|error| error.rv() == Rv::ARGUMENTS_BAD) {
            // The answer stays CKR_ARGUMENTS_BAD whatever this one says.
            let _ = module.session_cancel(session(handle), function);
        }
        result
    }

    /// Runs a function of an operation that has an output.
    pub(super) fn produce(
        &self,
        module: &Module<Entered>,
        function: u64,
        handle: CK_SESSION_HANDLE,
        place: *mut CK_BYTE,
        length: *mut CK_ULONG,
        make: impl FnOnce(HandleSession, Room) -> Result<Produced, Error>,
    ) -> Result<(), Error> {
        self.operate(module, function, handle, |session| {
            self.output(place, length, |room| make(session, room))
        })
    }

    /// Fills a buffer of the application to its end, piece by piece; an empty one still asks, so that the session is
    /// checked.
    pub(super) fn fill_bytes(
        &self,
        place: *mut CK_BYTE,
        length: CK_ULONG,
        mut make: impl FnMut(usize) -> Result<Zeroizing<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        if length > 0 {
            self.target(place)?;
        }
        let length = usize::try_from(length).map_err(|_| Rv::ARGUMENTS_BAD)?;
        let mut filled = 0_usize;
        loop {
            let wanted = CHUNK_BYTES.min(length.saturating_sub(filled));
            let piece = make(wanted)?;
            if piece.len() != wanted {
                return Err(Error::Protocol(format!(
                    "{wanted} random bytes were wanted, {} came",
                    piece.len()
                )));
            }
            self.copy_out(element(place, filled), wanted, &piece)?;
            filled = filled.saturating_add(wanted);
            if filled == length {
                return Ok(());
            }
        }
    }

    /// Bytes where NULL says something of its own: a PIN that is entered elsewhere (PKCS #11 v3.1, 5.6.8).
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL with a length.
    pub(super) fn optional_bytes(
        &self,
        place: *const CK_BYTE,
        length: CK_ULONG,
    ) -> Result<Option<&[u8]>, Rv> {
        let bytes = self.bytes(place, length)?;
        Ok(if place.is_null() { None } else { Some(bytes) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    fn caller() -> Caller {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        unsafe { Caller::promised() }
    }

    fn rv(result: Result<(), Error>) -> Rv {
        result.err().map_or(Rv::OK, |error| error.rv())
    }

    fn never<T>() -> Result<T, Error> {
        panic!("the module must not be asked")
    }

    #[test]
    fn a_value_without_a_place_is_not_made() {
        assert_eq!(rv(caller().fill::<CK_ULONG, u64>(null_mut(), never)), Rv::ARGUMENTS_BAD);
        let mut place: CK_ULONG = 0;
        assert_eq!(rv(caller().fill(&raw mut place, || Ok(5_u64))), Rv::OK);
        assert_eq!(place, 5);
    }

    #[test]
    fn a_pair_is_written_whole_or_not_made() {
        let (mut one, mut two): (CK_ULONG, CK_ULONG) = (0, 0);
        assert_eq!(
            rv(caller().fill_pair::<CK_ULONG, u64>(&raw mut one, null_mut(), never)),
            Rv::ARGUMENTS_BAD
        );
        assert_eq!(rv(caller().fill_pair(&raw mut one, &raw mut two, || Ok((1_u64, 2_u64)))), Rv::OK);
        assert_eq!((one, two), (1, 2));
    }

    #[test]
    fn a_list_is_counted_short_exact_and_with_room() {
        let make = || Ok(vec![4_u64, 5]);
        let mut count: CK_ULONG = 99;
        let mut items: [CK_ULONG; 3] = [0; 3];
        assert_eq!(rv(caller().list::<CK_ULONG, u64>(null_mut(), null_mut(), never)), Rv::ARGUMENTS_BAD);
        assert_eq!(rv(caller().list::<CK_ULONG, u64>(null_mut(), &raw mut count, make)), Rv::OK);
        assert_eq!(count, 2);
        count = 1;
        assert_eq!(rv(caller().list(items.as_mut_ptr(), &raw mut count, make)), Rv::BUFFER_TOO_SMALL);
        assert_eq!((count, items), (2, [0; 3]));
        assert_eq!(rv(caller().list(items.as_mut_ptr(), &raw mut count, make)), Rv::OK);
        count = 3;
        assert_eq!(rv(caller().list(items.as_mut_ptr(), &raw mut count, make)), Rv::OK);
        assert_eq!((count, items), (2, [4, 5, 0]));
    }

    #[test]
    fn a_page_of_a_list_keeps_within_its_room() {
        let mut count: CK_ULONG = 0;
        let mut items: [CK_ULONG; 2] = [0; 2];
        let make = |count_max| {
            assert_eq!(count_max, 2);
            Ok(vec![4_u64, 5, 6])
        };
        assert_eq!(
            rv(caller().list_up_to::<CK_ULONG, u64>(null_mut(), 1, &raw mut count, |_| never())),
            Rv::ARGUMENTS_BAD
        );
        assert_eq!(rv(caller().list_up_to(items.as_mut_ptr(), 2, &raw mut count, make)), Rv::OK);
        assert_eq!((count, items), (2, [4, 5]));
        let none = |_| Ok(Vec::<u64>::new());
        assert_eq!(rv(caller().list_up_to::<CK_ULONG, u64>(null_mut(), 0, &raw mut count, none)), Rv::OK);
        assert_eq!(count, 0);
    }

    #[test]
    fn an_output_is_asked_short_exact_and_with_room() {
        let make = |room: Room| {
            Ok(match room {
                Room::Ask => Produced::Length(3),
                Room::Bytes(bytes) if bytes < 3 => Produced::TooSmall(3),
                Room::Bytes(_) => Produced::Bytes(Zeroizing::new(vec![7, 8, 9]).into()),
            })
        };
        let mut buffer = [0_u8; 4];
        let mut length: CK_ULONG = 0;
        assert_eq!(rv(caller().output(buffer.as_mut_ptr(), null_mut(), |_| never())), Rv::ARGUMENTS_BAD);
        assert_eq!(rv(caller().output(null_mut(), &raw mut length, make)), Rv::OK);
        assert_eq!(length, 3);
        for short in [0, 2] {
            length = short;
            assert_eq!(rv(caller().output(buffer.as_mut_ptr(), &raw mut length, make)), Rv::BUFFER_TOO_SMALL);
            assert_eq!((length, buffer), (3, [0; 4]));
        }
        for enough in [3, 4, CK_ULONG::MAX] {
            length = enough;
            buffer = [0; 4];
            assert_eq!(rv(caller().output(buffer.as_mut_ptr(), &raw mut length, make)), Rv::OK);
            assert_eq!((length, buffer), (3, [7, 8, 9, 0]));
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_its_room_is_never_written() {
        let mut buffer = [0_u8; 2];
        let mut length: CK_ULONG = 2;
        let wrong = |_| Ok(Produced::Bytes(Zeroizing::new(vec![1, 2, 3]).into()));
        assert_ne!(rv(caller().output(buffer.as_mut_ptr(), &raw mut length, wrong)), Rv::OK);
        assert_eq!(buffer, [0; 2]);
    }

    #[test]
    fn a_buffer_is_filled_in_pieces_to_its_last_byte() {
        let mut buffer = vec![0_u8; CHUNK_BYTES + 5];
        let mut pieces = Vec::new();
        let make = |bytes: usize| {
            pieces.push(bytes);
            Ok(Zeroizing::new(vec![0xaa; bytes]))
        };
        assert_eq!(rv(caller().fill_bytes(buffer.as_mut_ptr(), ulong(CHUNK_BYTES + 4), make)), Rv::OK);
        assert_eq!(pieces, [CHUNK_BYTES, 4]);
        assert!(buffer[..CHUNK_BYTES + 4].iter().all(|byte| *byte == 0xaa));
        assert_eq!(buffer[CHUNK_BYTES + 4], 0);
        assert_eq!(rv(caller().fill_bytes(null_mut(), 1, |_| never())), Rv::ARGUMENTS_BAD);
        assert_eq!(rv(caller().fill_bytes(null_mut(), 0, |_| Ok(Zeroizing::new(Vec::new())))), Rv::OK);
        assert_ne!(rv(caller().fill_bytes(buffer.as_mut_ptr(), 2, |_| Ok(Zeroizing::new(vec![1])))), Rv::OK);
    }

    #[test]
    fn null_and_empty_bytes_are_told_apart() {
        let byte = 1_u8;
        assert_eq!(caller().optional_bytes(std::ptr::null(), 0), Ok(None));
        assert_eq!(caller().optional_bytes(&raw const byte, 0), Ok(Some(&[][..])));
        assert_eq!(caller().optional_bytes(&raw const byte, 1), Ok(Some(&[1][..])));
        assert_eq!(caller().optional_bytes(std::ptr::null(), 1), Err(Rv::ARGUMENTS_BAD));
    }
}
