//! Members that take time for their work (HA 4.5): one request at a time, the others wait in line, and what finds the line
//! full is answered Busy. It does what the lanes of `hsmd` do: what cannot be done in the time that its caller has left is not
//! begun, windows are granted from the length of the line, and probes do not wait.
use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use spec::messages::{Outcome, ReplyBody};
use spec::seam::Reply;
use zeroize::Zeroizing;

use super::{Frame, MS, Network};
use crate::breaks::call_name;
use crate::members::MEMBERS;

/// Requests that wait at a member at most.
const WAITING_MAX: usize = 24;
/// Connections that share the line of a member: those of two processes.
const CONNECTIONS: usize = 2;
/// The least and the longest patience that a member with a full line asks for, in milliseconds.
const BUSY_MS: (u64, u64) = (5, 1_000);

/// The lines of all members.
pub(super) struct Lanes {
    /// What one request takes, in nanoseconds.
    service: u64,
    lanes: [Lane; MEMBERS],
}

#[derive(Default)]
struct Lane {
    working: bool,
    /// When each request arrived.
    waiting: VecDeque<(u64, Frame)>,
}

impl Network {
    /// A slow disk: the commit comes later, and reads overtake it.
    pub(super) fn is_synced_later(self: &Arc<Self>, frame: &Frame) -> bool {
        let wait = if frame.synced { None } else { self.books.disk_ms(frame.member, frame.call) };
        let Some(wait) = wait else { return false };
        let (network, mut frame) = (self.clone(), frame.clone());
        frame.synced = true;
        self.world.after(wait * MS, move || network.arrives(frame));
        true
    }

    /// From now on each member does one request in so many nanoseconds. Those that wait stay in line.
    pub(crate) fn limit(&self, service: u64) {
        let new = || Lanes { service, lanes: std::array::from_fn(|_| Lane::default()) };
        self.state().lanes.get_or_insert_with(new).service = service;
    }

    /// The window that replies grant; 0 grants what is wanted.
    pub(super) fn window(&self) -> u32 {
        let limited = self.state().lanes.is_some();
        if limited { u32::try_from((1 + WAITING_MAX) / CONNECTIONS).unwrap_or(1) } else { 0 }
    }

    /// Whether the request waits for its turn, or was told to come again.
    pub(super) fn stands_in_line(self: &Arc<Self>, frame: &Frame) -> bool {
        if call_name(frame.call) == "Status" {
            return false;
        }
        let now = self.world.now();
        let busy = {
            let mut state = self.state();
            let Some(lanes) = &mut state.lanes else { return false };
            let lane = &mut lanes.lanes[frame.member];
            if lane.waiting.len() >= WAITING_MAX {
                Some(lanes.service * WAITING_MAX as u64 / MS)
            } else {
                lane.waiting.push_back((now, frame.clone()));
                None
            }
        };
        match busy {
            Some(ms) => {
                let (network, frame) = (self.clone(), frame.clone());
                let ms = u32::try_from(ms.clamp(BUSY_MS.0, BUSY_MS.1)).unwrap_or(1);
                self.world.after(self.delay(), move || network.answers(frame, None, ms));
            }
            None => self.take_next(frame.member),
        }
        true
    }

    /// A member that does nothing takes the next request of its line.
    fn take_next(self: &Arc<Self>, member: usize) {
        loop {
            let (arrived, frame, service) = {
                let mut state = self.state();
                let Some(lanes) = &mut state.lanes else { return };
                let lane = &mut lanes.lanes[member];
                if lane.working {
                    return;
                }
                let Some((arrived, frame)) = lane.waiting.pop_front() else { return };
                lane.working = true;
                (arrived, frame, lanes.service)
            };
            let given = u64::from(frame.request.header.remaining_ms) * MS;
            let expires = self.world.now() - arrived + service.min(given / 4) > given;
            let network = self.clone();
            if self.is_open(&frame) && !expires {
                return self.world.after(service, move || {
                    let same = network.held(&frame, true).1;
                    network.carry_out(frame, same);
                    network.rest(member);
                    network.take_next(member);
                });
            }
            self.rest(member);
            // Whoever cancelled hears nothing.
            let reply = ReplyBody { outcome: Outcome::EXPIRED.0, ..ReplyBody::default() };
            let header =
                self.members[member].partition().map(|partition| partition.header()).unwrap_or_default();
            let reply = Reply { header, body: Zeroizing::new(reply.encode_to_vec()) };
            self.world.after(self.delay(), move || network.answers(frame, Some(reply), 0));
        }
    }

    fn rest(&self, member: usize) {
        if let Some(lanes) = &mut self.state().lanes {
            lanes.lanes[member].working = false;
        }
    }
}
