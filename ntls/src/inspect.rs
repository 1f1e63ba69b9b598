//! What a simulation asks of links (HA 8): whether the invariants of HA 5 hold at this moment. No call asks.
use spec::platform::Park;

use crate::link::Link;
use crate::links::Links;

impl Links {
    /// Which rule of HA 5 does not hold; a sentence. `place` is that of a thread which is about to park. It takes the locks of
    /// the links, so the caller holds none.
    pub fn broken_rule(&self, place: Option<&dyn Park>) -> Option<String> {
        if place.is_some_and(|place| self.shared.seat.is_held_from(place)) {
            return Some("HA 5 (1): the thread that does the background work parks".to_owned());
        }
        if !self.shared.seat.is_sound() {
            return Some("HA 5 (2): threads are there for the background work and none has it".to_owned());
        }
        let links = self.shared.all_links();
        if let Some(link) = links.iter().find(|link| place.is_some_and(|place| is_led_from(link, place))) {
            return Some(format!("HA 5 (1): the leader of link {} parks", link.number));
        }
        let link = links.iter().find(|link| link.look(|up| !up.lead.is_sound()) == Some(true))?;
        Some(format!("HA 5 (2): callers wait on link {}, and nobody leads it or has its token", link.number))
    }
}

/// Whether the thread that waits in this place has the role of the leader in its hands.
fn is_led_from(link: &Link, place: &dyn Park) -> bool {
    let led = link.look(|up| {
        let leader = up.lead.leader().filter(|_| up.reader.is_none());
        leader.is_some_and(|leader| std::ptr::addr_eq(leader.park(), place))
    });
    led.unwrap_or_default()
}
