//! One direction of a connection: a reader that splits into records, a queue, a writer that waits.
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Proxy;
use super::fault::{Cut, Direction};

/// How many records may wait in a queue; then the sender's socket fills, as it would with TCP.
const QUEUE: usize = 256;
/// How long TCP waits before it sends a lost segment again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Between two bytes of a trickle.
const TRICKLE: Duration = Duration::from_millis(5);

/// A record on its way.
struct Load {
    bytes: Vec<u8>,
    due: Instant,
    /// Resets the connection once written.
    last: bool,
}

/// One direction of one connection.
pub(super) struct Way {
    pub(super) proxy: Arc<Proxy>,
    pub(super) id: u64,
    pub(super) target: usize,
    pub(super) direction: Direction,
}

/// Ends a connection so that the peer hears a reset, not an orderly end.
pub(super) fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

impl Way {
    /// Carries until either side ends.
    pub(super) fn run(&self, from: &TcpStream, to: &TcpStream) {
        let (sender, receiver) = sync_channel(QUEUE);
        thread::scope(|scope| {
            scope.spawn(move || self.write(&receiver, to));
            self.read(from, &sender);
            drop(sender);
        });
    }

    fn read(&self, mut from: &TcpStream, queue: &SyncSender<Load>) {
        let (mut held, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        // Chance of the kind that only spreads: which records meet a loss.
        let mut chance = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            held.extend_from_slice(&chunk[..count]);
            while let Some(length) = whole(&held) {
                let mut bytes: Vec<u8> = held.drain(..length).collect();
                let fault = self.proxy.fault(self.target);
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let lost = (chance >> 33) % 100 < u64::from(fault.loss_percent);
                let late = fault.delay + if lost { RETRANSMISSION } else { Duration::ZERO };
                let is_data = bytes.first() == Some(&APPLICATION_DATA);
                let cut = if is_data {
                    self.proxy.judge(self.id, self.target, self.direction, length - HEADER_BYTES)
                } else {
                    None
                };
                match cut {
                    None | Some(Cut::After) => {}
                    Some(Cut::Before) => bytes.clear(),
                    Some(Cut::Middle) => bytes.truncate(length / 2),
                    Some(Cut::At(at)) => bytes.truncate(at),
                }
                let load = Load { bytes, due: Instant::now() + late, last: cut.is_some() };
                if queue.send(load).is_err() || cut.is_some() {
                    return;
                }
            }
        }
    }

    fn write(&self, queue: &Receiver<Load>, to: &TcpStream) {
        while let Ok(load) = queue.recv() {
            thread::sleep(load.due.saturating_duration_since(Instant::now()));
            while self.proxy.fault(self.target).holds(self.direction) && self.proxy.is_open(self.id) {
                self.proxy.wait_for_change();
            }
            let written = self.put(&load.bytes, to);
            if load.last {
                // What was let through must arrive in front of the reset.
                thread::sleep(Duration::from_millis(2));
                return self.proxy.end(self.id);
            }
            if !written {
                break;
            }
        }
        if self.proxy.is_open(self.id) {
            // The sender has ended, or the receiver has gone: the other way ends as well.
            let _ = to.shutdown(Shutdown::Both);
        }
    }

    /// Whether all of it could be written.
    fn put(&self, bytes: &[u8], mut to: &TcpStream) -> bool {
        if !self.proxy.fault(self.target).trickle {
            return to.write_all(bytes).is_ok();
        }
        for (at, byte) in bytes.iter().enumerate() {
            if !self.proxy.fault(self.target).trickle {
                return to.write_all(&bytes[at..]).is_ok();
            }
            if to.write_all(std::slice::from_ref(byte)).is_err() {
                return false;
            }
            thread::sleep(TRICKLE);
        }
        true
    }
}

/// Bytes in front of a TLS record's content: type, version, length.
const HEADER_BYTES: usize = 5;
/// The type of a TLS record that carries data.
const APPLICATION_DATA: u8 = 23;

/// The length of the whole record at the front; of everything when it is no TLS.
fn whole(held: &[u8]) -> Option<usize> {
    match *held {
        [] => None,
        [20..=24, 3, _, high, low, ..] => {
            let length = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
            (held.len() >= length).then_some(length)
        }
        // Too little to tell.
        [20..=24] | [20..=24, 3] | [20..=24, 3, _] | [20..=24, 3, _, _] => None,
        _ => Some(held.len()),
    }
}
