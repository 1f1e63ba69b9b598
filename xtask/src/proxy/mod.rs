//! A TCP proxy that does to connections what networks do: delay, loss, silence in one direction or both, a trickle,
//! and cuts at a chosen place. It understands where TLS records begin and end and nothing more.
//!
//! ```text
//! client -> front address -> [reader -> queue -> writer] -> appliance        "up"
//! client <-       [writer <- queue <- reader]            <- appliance        "down"
//! ```
//! A reader splits into records and asks the trigger; a writer waits out delays and holds. What is held is not lost, as
//! with TCP: it goes on when the fault is cleared.
pub mod control;
mod fault;
mod pump;

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use fault::{Cut, Direction, Fault, Trigger};

use crate::problem::Problem;

/// What one proxied address has seen, in records of TLS application data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections taken.
    pub connections: u64,
    /// Records towards the appliance.
    pub up: u64,
    /// Records towards the client.
    pub down: u64,
}

/// The two sockets of a connection.
struct Pair {
    target: usize,
    client: TcpStream,
    server: TcpStream,
}

struct State {
    faults: Vec<Fault>,
    trigger: Option<Trigger>,
    /// Triggers that have fired since the start.
    fired: u64,
    /// The connection whose next reply is to be cut, and how.
    reply: Option<(u64, Cut)>,
    seen: Vec<Seen>,
    pairs: HashMap<u64, Pair>,
}

/// Proxies in front of some addresses, with one set of faults for each and one trigger for all.
pub struct Proxy {
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicU64,
}

impl Proxy {
    /// Listens on each front address and forwards to the address behind it.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn start(ways: &[(SocketAddr, SocketAddr)]) -> Result<Arc<Self>, Problem> {
        let state = State {
            faults: vec![Fault::default(); ways.len()],
            trigger: None,
            fired: 0,
            reply: None,
            seen: vec![Seen::default(); ways.len()],
            pairs: HashMap::new(),
        };
        let proxy =
            Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), next: AtomicU64::new(1) });
        for (target, (front, behind)) in ways.iter().copied().enumerate() {
            let listener = TcpListener::bind(front)
                .map_err(|error| Problem(format!("{front} cannot be listened on: {error}")))?;
            let proxy = proxy.clone();
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let proxy = proxy.clone();
                    thread::spawn(move || proxy.carry(target, client, behind));
                }
            });
        }
        Ok(proxy)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many addresses it stands before.
    pub fn targets(&self) -> usize {
        self.lock().faults.len()
    }

    /// Sets the fault of an address, for the connections that are there and those to come.
    pub fn set(&self, target: usize, fault: Fault) {
        let mut state = self.lock();
        state.faults[target] = fault;
        if fault.refuse {
            reset(&mut state, |pair| pair.target == target);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Resets every connection of an address; new ones are taken.
    pub fn cut(&self, target: usize) {
        reset(&mut self.lock(), |pair| pair.target == target);
        self.changed.notify_all();
    }

    /// Arms the one trigger, which fires once, on the first connection that matches; `None` disarms it.
    pub fn arm(&self, trigger: Option<Trigger>) {
        let mut state = self.lock();
        state.trigger = trigger;
        state.reply = None;
    }

    /// How many triggers have cut a connection since the start.
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// What an address has seen.
    pub fn seen(&self, target: usize) -> Seen {
        self.lock().seen[target]
    }

    /// Carries one connection to its end.
    fn carry(self: &Arc<Self>, target: usize, client: TcpStream, behind: SocketAddr) {
        if self.lock().faults[target].refuse {
            return pump::reset(&client);
        }
        // A black hole swallows new connections as well: they are taken by our kernel and come no further.
        while self.lock().faults[target].holds(Direction::Up) {
            self.wait_for_change();
        }
        let Ok(server) = TcpStream::connect_timeout(&behind, Duration::from_secs(5)) else {
            return pump::reset(&client);
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        {
            let mut state = self.lock();
            state.seen[target].connections += 1;
            state.pairs.insert(id, Pair { target, client: client_too, server: server_too });
        }
        let copies = (client.try_clone(), server.try_clone());
        if let (Ok(client_too), Ok(server_too)) = copies {
            let way = pump::Way { proxy: self.clone(), id, target, direction: Direction::Down };
            let down = thread::spawn(move || way.run(&server_too, &client_too));
            let way = pump::Way { proxy: self.clone(), id, target, direction: Direction::Up };
            way.run(&client, &server);
            let _ = down.join();
        }
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        self.lock().pairs.remove(&id);
    }

    fn wait_for_change(&self) {
        let state = self.lock();
        // Woken when a fault changes; the bound is for a peer that has gone meanwhile.
        let _ = self.changed.wait_timeout(state, Duration::from_millis(50));
    }

    fn fault(&self, target: usize) -> Fault {
        self.lock().faults[target]
    }

    fn is_open(&self, id: u64) -> bool {
        self.lock().pairs.contains_key(&id)
    }

    /// What is to become of a whole record.
    fn judge(&self, id: u64, target: usize, direction: Direction, bytes: usize) -> Option<Cut> {
        let mut state = self.lock();
        match direction {
            Direction::Up => state.seen[target].up += 1,
            Direction::Down => state.seen[target].down += 1,
        }
        if let Some((waiting, cut)) = state.reply {
            // The answer to what the trigger let through; shorter ones are Pongs and Progress.
            if waiting == id && direction == Direction::Down && bytes >= fault::REPLY_BYTES_MIN {
                state.reply = None;
                state.fired += 1;
                return Some(cut);
            }
        }
        let trigger = state.trigger.as_mut()?;
        if trigger.direction != direction || bytes < trigger.bytes_min {
            return None;
        }
        if trigger.skip > 0 {
            trigger.skip -= 1;
            return None;
        }
        let (cut, on_reply) = (trigger.cut, trigger.on_reply);
        state.trigger = None;
        if on_reply {
            state.reply = Some((id, cut));
            return None;
        }
        state.fired += 1;
        Some(cut)
    }

    /// Resets one connection.
    fn end(&self, id: u64) {
        let mut state = self.lock();
        if let Some(pair) = state.pairs.remove(&id) {
            pump::reset(&pair.client);
            pump::reset(&pair.server);
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn reset(state: &mut State, which: impl Fn(&Pair) -> bool) {
    let ids: Vec<u64> = state.pairs.iter().filter(|(_, pair)| which(pair)).map(|(id, _)| *id).collect();
    for id in ids {
        if let Some(pair) = state.pairs.remove(&id) {
            pump::reset(&pair.client);
            pump::reset(&pair.server);
        }
    }
}

#[cfg(test)]
mod tests;
