//! A queue that is fair by client, then by link (HA 4.5): each client's turn comes once in a round, and within it each of
//! its links once, however much the others have queued.
//!
//! ```text
//! push(owner) -> [client A: [link 1: a b] [link 2: c]]  [client B: [link 3: d]]      pop: a d c b
//! full: push_out takes the newest of whoever has queued most, when that is somebody else
//! ```
use std::collections::{HashMap, VecDeque};

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The client's identity.
    pub client: [u8; 32],
    /// The link's number in this process.
    pub link: u64,
}

/// One level: queues by name, each with its turn.
struct Round<K, Q> {
    queues: HashMap<K, Q>,
    turns: VecDeque<K>,
}

impl<K, Q> Default for Round<K, Q> {
    fn default() -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new() }
    }
}

/// The work of one client.
struct Client<J> {
    links: Round<u64, VecDeque<J>>,
    len: usize,
}

/// Work in the order of turns.
pub(crate) struct FairQueue<J> {
    clients: Round<[u8; 32], Client<J>>,
    len: usize,
}

impl<J> Default for FairQueue<J> {
    fn default() -> Self {
        Self { clients: Round::default(), len: 0 }
    }
}

impl<J> FairQueue<J> {
    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How much of a client waits.
    pub(crate) fn len_of(&self, client: &[u8; 32]) -> usize {
        self.clients.queues.get(client).map_or(0, |client| client.len)
    }

    /// Queues work behind that of the same link.
    pub(crate) fn push(&mut self, owner: Owner, job: J) {
        let Round { queues, turns } = &mut self.clients;
        let client = queues.entry(owner.client).or_insert_with(|| {
            turns.push_back(owner.client);
            Client { links: Round::default(), len: 0 }
        });
        let Round { queues, turns } = &mut client.links;
        let link = queues.entry(owner.link).or_insert_with(|| {
            turns.push_back(owner.link);
            VecDeque::new()
        });
        link.push_back(job);
        client.len += 1;
        self.len += 1;
    }

    /// The work whose turn it is, and whose it is; clients that may have none now keep their place.
    pub(crate) fn pop(&mut self, may: impl Fn(&[u8; 32]) -> bool) -> Option<([u8; 32], J)> {
        let at = self.clients.turns.iter().position(may)?;
        let name = self.clients.turns.remove(at)?;
        let client = self.clients.queues.get_mut(&name)?;
        let link_name = client.links.turns.pop_front()?;
        let link = client.links.queues.get_mut(&link_name)?;
        let job = link.pop_front();
        if link.is_empty() {
            client.links.queues.remove(&link_name);
        } else {
            client.links.turns.push_back(link_name);
        }
        client.len -= 1;
        self.len -= 1;
        if client.len == 0 {
            self.clients.queues.remove(&name);
        } else {
            self.clients.turns.push_back(name);
        }
        job.map(|job| (name, job))
    }

    /// Makes room for one more of this client: the newest work of the longest link of the client that has queued most,
    /// if that is more than this one would have with its newcomer.
    pub(crate) fn push_out(&mut self, newcomer: &[u8; 32]) -> Option<J> {
        let own = self.len_of(newcomer) + 1;
        let (name, client) = self.clients.queues.iter_mut().max_by_key(|(_, client)| client.len)?;
        if client.len <= own {
            return None;
        }
        let (link_name, link) = client.links.queues.iter_mut().max_by_key(|(_, link)| link.len())?;
        let job = link.pop_back();
        let (name, link_name, emptied) = (*name, *link_name, link.is_empty());
        if emptied {
            client.links.queues.remove(&link_name);
            client.links.turns.retain(|turn| *turn != link_name);
        }
        client.len -= 1;
        self.len -= 1;
        // A client with more than the newcomer has something left.
        debug_assert!(self.clients.queues.get(&name).is_some_and(|client| client.len > 0));
        job
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn owner(client: u8, link: u64) -> Owner {
        Owner { client: [client; 32], link }
    }

    fn pop<J>(queue: &mut FairQueue<J>) -> Option<J> {
        queue.pop(|_| true).map(|(_, job)| job)
    }

    #[test]
    fn a_client_that_may_have_no_turn_now_keeps_its_place() {
        let mut queue = FairQueue::default();
        for (client, job) in [(1, "a"), (2, "b"), (3, "c"), (1, "a again")] {
            queue.push(owner(client, client.into()), job);
        }
        assert_eq!(queue.pop(|client| *client != [1; 32]), Some(([2; 32], "b")));
        assert_eq!(queue.pop(|client| *client == [2; 32]), None, "it has nothing left");
        assert_eq!(pop(&mut queue), Some("a"));
        assert_eq!(pop(&mut queue), Some("c"));
        assert_eq!((pop(&mut queue), queue.len()), (Some("a again"), 0));
    }

    #[test]
    fn ha_4_5_turns_go_round_the_clients_and_then_round_their_links() {
        let mut queue = FairQueue::default();
        for job in ["a1 first", "a1 second", "a1 third"] {
            queue.push(owner(1, 1), job);
        }
        queue.push(owner(1, 2), "a2 first");
        queue.push(owner(2, 3), "b first");
        queue.push(owner(2, 3), "b second");
        assert_eq!((queue.len(), queue.len_of(&[1; 32]), queue.len_of(&[9; 32])), (6, 4, 0));
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order, ["a1 first", "b first", "a2 first", "b second", "a1 second", "a1 third"]);
        assert_eq!(queue.len(), 0);
        assert!(queue.clients.queues.is_empty() && queue.clients.turns.is_empty());
    }

    #[test]
    fn ha_4_5_a_full_queue_makes_room_at_the_cost_of_who_has_queued_most() {
        let mut queue = FairQueue::default();
        for job in 0..5 {
            queue.push(owner(1, 1), job);
        }
        queue.push(owner(1, 2), 5);
        assert_eq!(queue.push_out(&[1; 32]), None, "nobody pushes himself out");
        assert_eq!(queue.push_out(&[2; 32]), Some(4), "the newest of the longest link");
        queue.push(owner(2, 3), 100);
        assert_eq!(queue.push_out(&[2; 32]), Some(3));
        queue.push(owner(2, 3), 101);
        assert_eq!(queue.push_out(&[2; 32]), Some(2));
        queue.push(owner(2, 3), 102);
        assert_eq!(queue.push_out(&[2; 32]), None, "it has its share");
        assert_eq!(queue.push_out(&[3; 32]).map(|job| job > 0), Some(true), "a third one still gets in");
        let mut left: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        left.sort_unstable();
        assert_eq!(left.len(), 5);
    }

    #[test]
    fn whatever_is_pushed_comes_out_once_in_the_order_of_its_link() {
        let seed: u64 = u64::from(std::process::id());
        eprintln!("seed {seed}");
        let mut state = seed;
        let mut chance = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut queue, mut waiting) = (FairQueue::default(), HashMap::<u64, VecDeque<u64>>::new());
        for number in 0..20_000_u64 {
            let link = chance(12);
            match chance(5) {
                0..=1 => {
                    queue.push(owner(u8::try_from(link / 3).unwrap(), link), (link, number));
                    waiting.entry(link).or_default().push_back(number);
                }
                2..=3 => match pop(&mut queue) {
                    Some((link, number)) => {
                        assert_eq!(waiting.get_mut(&link).unwrap().pop_front(), Some(number))
                    }
                    None => assert!(waiting.values().all(VecDeque::is_empty)),
                },
                _ => {
                    if let Some((link, number)) = queue.push_out(&[9; 32]) {
                        assert_eq!(waiting.get_mut(&link).unwrap().pop_back(), Some(number));
                    }
                }
            }
            assert_eq!(queue.len(), waiting.values().map(VecDeque::len).sum::<usize>());
        }
    }
}
