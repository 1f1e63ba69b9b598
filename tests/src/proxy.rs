//! The fault proxies of a laboratory: `xtask lab up --proxy` puts one before each appliance.
use std::time::{Duration, Instant};

use xtask::lab::proxied;
use xtask::proxy::control;

use crate::lab::Lab;

impl Lab {
    /// Says one line to the proxies: `2 blackhole`, `all clear`, `3 cut`, `arm half-reply min=110`, `fired`.
    ///
    /// # Panics
    /// When there are none, or they refuse the line.
    pub fn fault(&self, line: &str) -> String {
        control::tell(&proxied::socket(self.path()), line)
            .unwrap_or_else(|problem| panic!("{line}: {problem}"))
    }

    /// How many connections the proxies have cut by a trigger.
    ///
    /// # Panics
    /// When they do not say.
    pub fn fired(&self) -> u64 {
        self.fault("fired").parse().expect("a count is a number")
    }

    /// How many connections each proxy has taken since the start.
    ///
    /// # Panics
    /// When they do not say.
    pub fn connections(&self) -> Vec<u64> {
        let numbers = self.fault("all seen");
        let numbers: Vec<u64> =
            numbers.split(' ').map(|word| word.parse().expect("a count is a number")).collect();
        numbers.chunks(3).map(|seen| seen[0]).collect()
    }

    /// Waits until some proxy has taken a connection more than `before`.
    ///
    /// # Panics
    /// When that has not come true after a minute.
    pub fn wait_for_a_new_link(&self, before: &[u64]) {
        let begun = Instant::now();
        while self.connections() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "the lost link does not come back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
