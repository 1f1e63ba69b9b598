//! C_GenerateRandom (PKCS #11 v3.1, 5.21.2): from buffers of the process that members fill ahead, or from a member each time when
//! `Hatoki: LocalRandom` is 0.
//!
//! What is handed out is a member's bytes combined by exclusive or with as many of the system's, which are drawn at that moment:
//! none can tell it from chance who does not know both (docs/adr/0012-random-buffers.md). A buffer holds the member's alone. Each group has a row of places, one a thread while there are
//! enough; whoever draws takes the buffer out by one atomic swap and puts it back, so there is no lock.
//!
//! ```text
//! place: empty --draw: a member fills--> buffer --draws, each wiped as it is handed out--> used up: the next one is filled
//!                                          '--> wiped after 60 s, by C_Finalize, and by the first call in a forked child (HA 6)
//! ```
//! Large wants go past the buffer, mixed all the same.
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use crossbeam_utils::atomic::AtomicCell;
use spec::HandleSession;
use spec::messages::{Answer, Call, Random};
use spec::platform::Moment;
use spec::wipe::wipe;
use zeroize::{Zeroize, Zeroizing};

use crate::asking::{Asking, strange};
use crate::error::Result;
use crate::process::Process;

/// Most bytes of one request.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes that are filled at once.
const BUFFER_BYTES: usize = 4_096;
/// Most bytes that one draw takes of a buffer.
const DRAW_BYTES_MAX: usize = 1_024;
/// How long a buffer may be drawn from, in milliseconds.
const LIFE_MS: u64 = 60_000;
/// Places of a group: 256 KiB at most.
const PLACES: usize = 64;

/// C_GenerateRandom: so many bytes.
pub(crate) fn generate(
    process: &Process,
    session: HandleSession,
    bytes: usize,
) -> Result<Zeroizing<Vec<u8>>> {
    let session = process.session(session)?;
    let asking = Asking { process, slot: &session.slot };
    let mut output = Zeroizing::new(vec![0; bytes]);
    if !process.configuration().as_ref().is_none_or(|conf| conf.hatoki.local_random) {
        ask(&asking, &mut output)?;
    } else if bytes > DRAW_BYTES_MAX {
        ask(&asking, &mut output)?;
        mix(process, &mut output);
    } else if bytes > 0 {
        let known = process.world().answering(process, &session.slot)?;
        let place = known.random.place(process.platform.thread());
        place.draw(process.platform.now(), &mut output, |fresh| ask(&asking, fresh))?;
        mix(process, &mut output);
    }
    Ok(output)
}

/// Combines bytes with as many of the system's by exclusive or.
fn mix(process: &Process, output: &mut [u8]) {
    let mut room = [0; DRAW_BYTES_MAX];
    for piece in output.chunks_mut(room.len()) {
        let own = &mut room[..piece.len()];
        process.platform.random(own);
        piece.iter_mut().zip(&*own).for_each(|(byte, own)| *byte ^= own);
        wipe(own);
    }
}

/// Bytes of a member.
fn ask(asking: &Asking<'_>, output: &mut [u8]) -> Result<()> {
    for piece in output.chunks_mut(REQUEST_BYTES_MAX) {
        let call = Random { bytes: u32::try_from(piece.len()).expect("at most 1 MiB is wanted") };
        match asking.any(Call::Random(call))? {
            Answer::Random(answer) if answer.output.len() == piece.len() => {
                piece.copy_from_slice(&answer.output);
            }
            _ => return Err(strange("Random")),
        }
    }
    Ok(())
}

/// The buffers of one group; part of the `World`.
pub(crate) struct Buffers {
    places: [CachePadded<Place>; PLACES],
}

impl Default for Buffers {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| CachePadded::default()) }
    }
}

impl Buffers {
    /// The place of a thread, given by its number.
    fn place(&self, thread: u64) -> &Place {
        let number = usize::try_from(thread % PLACES as u64).unwrap_or(0);
        &self.places[number]
    }

    /// Wipes the buffers whose time is over.
    pub(crate) fn drop_old(&self, now: Moment) {
        self.places.iter().for_each(|place| place.drop_old(now));
    }

    /// Wipes every buffer that no thread is drawing from.
    pub(crate) fn wipe(&self) {
        self.places.iter().for_each(|place| drop(place.buffer.take()));
    }
}

/// Where one buffer waits between draws.
struct Place {
    buffer: AtomicCell<Option<Box<Buffer>>>,
    /// When the last buffer put here is to be dropped, so that nobody has to take it for a look.
    until: AtomicU64,
}

impl Default for Place {
    fn default() -> Self {
        Self { buffer: AtomicCell::new(None), until: AtomicU64::new(u64::MAX) }
    }
}

impl Place {
    /// Draws from the buffer, and from one that is filled anew for what is missing. An error costs nothing that was there.
    fn draw(&self, now: Moment, output: &mut [u8], fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let mut held = self.buffer.take().filter(|buffer| now < buffer.until);
        let left = held.as_ref().map_or(0, |buffer| buffer.unused);
        let outcome = if left >= output.len() { Ok(None) } else { Buffer::filled(now, fill).map(Some) };
        if let Ok(fresh) = outcome {
            let (first, rest) = output.split_at_mut(left.min(output.len()));
            if let Some(held) = &mut held {
                held.hand_out(first);
            }
            if let Some(mut fresh) = fresh {
                fresh.hand_out(rest);
                held = Some(fresh);
            }
            self.keep(held);
            return Ok(());
        }
        self.keep(held);
        outcome.map(drop)
    }

    /// Puts a buffer back; one that another thread of the same place has put here meanwhile is wiped.
    fn keep(&self, buffer: Option<Box<Buffer>>) {
        if let Some(buffer) = buffer.filter(|buffer| buffer.unused > 0) {
            self.until.store(buffer.until.0, Ordering::Relaxed);
            drop(self.buffer.swap(Some(buffer)));
        }
    }

    fn drop_old(&self, now: Moment) {
        if self.until.load(Ordering::Relaxed) <= now.0 {
            self.keep(self.buffer.take().filter(|buffer| now < buffer.until));
        }
    }
}

/// Random bytes that nobody has been given yet: the first `unused`; behind them are zeros.
struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    unused: usize,
    until: Moment,
}

impl Buffer {
    fn filled(now: Moment, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Box<Self>> {
        let mut bytes = Zeroizing::new(vec![0; BUFFER_BYTES]);
        fill(&mut bytes)?;
        Ok(Box::new(Self { unused: bytes.len(), bytes, until: now.after_ms(LIFE_MS) }))
    }

    /// Moves so many unused bytes, which must be there, into the output.
    fn hand_out(&mut self, output: &mut [u8]) {
        let start = self.unused - output.len();
        let given = &mut self.bytes[start..self.unused];
        output.copy_from_slice(given);
        given.zeroize();
        self.unused = start;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Draws with a source that gives every fill its own number.
    struct Source {
        place: Place,
        fills: u8,
    }

    impl Source {
        fn new() -> Self {
            Self { place: Place::default(), fills: 0 }
        }

        fn draw(&mut self, ms: u64, bytes: usize) -> Vec<u8> {
            let mut output = vec![0; bytes];
            let fill = |fresh: &mut [u8]| {
                self.fills += 1;
                fresh.fill(self.fills);
                Ok(())
            };
            self.place.draw(Moment(0).after_ms(ms), &mut output, fill).unwrap();
            output
        }

        /// What lies in the place: all bytes, and how many of them are unused.
        fn look(&self) -> Option<(Vec<u8>, usize)> {
            let buffer = self.place.buffer.take()?;
            let seen = (buffer.bytes.to_vec(), buffer.unused);
            self.place.buffer.store(Some(buffer));
            Some(seen)
        }
    }

    #[test]
    fn one_fill_serves_many_draws_and_the_next_begins_where_it_ends() {
        let mut source = Source::new();
        (0..BUFFER_BYTES / 1_000).for_each(|_| assert_eq!(source.draw(0, 1_000), [1; 1_000]));
        let over = source.draw(0, 1_000);
        assert_eq!((&over[..96], &over[96..]), (&[1; 96][..], &[2; 904][..]));
        assert_eq!(source.fills, 2);
    }

    #[test]
    fn what_is_handed_out_is_wiped_at_once() {
        let mut source = Source::new();
        source.draw(0, 100);
        let (bytes, unused) = source.look().unwrap();
        assert_eq!(unused, BUFFER_BYTES - 100);
        assert!(
            bytes[..unused].iter().all(|byte| *byte == 1) && bytes[unused..].iter().all(|byte| *byte == 0)
        );
    }

    #[test]
    fn a_buffer_is_dropped_after_60_s_by_a_draw_and_by_a_look() {
        let mut source = Source::new();
        source.draw(0, 10);
        assert_eq!(source.draw(59_999, 10), [1; 10]);
        assert_eq!(source.draw(60_000, 10), [2; 10]);
        source.place.drop_old(Moment(0).after_ms(119_999));
        assert!(source.look().is_some());
        source.place.drop_old(Moment(0).after_ms(120_000));
        assert!(source.look().is_none());
    }

    #[test]
    fn a_fill_that_fails_leaves_what_is_there() {
        let mut source = Source::new();
        source.draw(0, BUFFER_BYTES - 10);
        let mut output = [0; 20];
        let failed = source.place.draw(Moment(0), &mut output, |_| Err(Error::Outage(String::new())));
        assert!(matches!(failed, Err(Error::Outage(_))));
        assert_eq!(source.draw(0, 10), [1; 10]);
        assert_eq!(source.fills, 1);
    }

    #[test]
    fn threads_have_places_of_their_own_and_a_wipe_empties_all() {
        let buffers = Buffers::default();
        let fill = |fresh: &mut [u8]| {
            fresh.fill(7);
            Ok(())
        };
        for thread in 0..PLACES as u64 {
            buffers.place(thread).draw(Moment(0), &mut [0; 8], fill).unwrap();
        }
        let full = || buffers.places.iter().filter(|place| place.until.load(Ordering::Relaxed) < u64::MAX);
        assert_eq!(full().count(), PLACES);
        buffers.wipe();
        assert!(buffers.places.iter().all(|place| place.buffer.take().is_none()));
    }
}
