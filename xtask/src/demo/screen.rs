//! The live status line, and what it knows of the members.
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Interrupt;
use super::load::Load;
use crate::lab::{Lab, MemberState};
use crate::problem::Problem;

const TURN: Duration = Duration::from_millis(200);
/// Where nobody watches a terminal, a line now and then is enough.
const PLAIN_TURNS: u64 = 5;
/// A member takes load when it uses at least this share of the processor time that the busiest member uses.
const LOAD_SHARE: f64 = 0.2;

/// A member's processor time over the last second or so.
#[derive(Clone, Copy, Default)]
struct Usage {
    ticks: u64,
    per_second: f64,
}

/// Draws the line and watches the members.
pub(crate) struct Screen {
    lab: Lab,
    terminal: bool,
    turns: u64,
    states: Arc<Mutex<Vec<MemberState>>>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
    usage: Vec<Usage>,
    measured: Instant,
    last: (Instant, u64),
    rate: f64,
}

impl Screen {
    /// A screen that asks `vtl haAdmin show` about the members in the background.
    pub(crate) fn new(lab: &Lab) -> Self {
        let (states, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (own, seen, until) = (lab.clone(), states.clone(), stop.clone());
        let watcher = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok(states) = own.states() {
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = states;
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        let usage = lab
            .members()
            .iter()
            .map(|member| Usage { ticks: member.processor_ticks(), per_second: 0.0 })
            .collect();
        let now = Instant::now();
        Self {
            lab: lab.clone(),
            terminal: std::io::stdout().is_terminal(),
            turns: 0,
            states,
            stop,
            watcher: Some(watcher),
            usage,
            measured: now,
            last: (now, 0),
            rate: 0.0,
        }
    }

    /// Shows the line for so long.
    pub(crate) fn run_for(
        &mut self,
        span: Duration,
        phase: &str,
        load: &Load,
        interrupt: &Interrupt,
    ) -> Result<(), Problem> {
        let start = Instant::now();
        while start.elapsed() < span {
            interrupt.check()?;
            if !load.is_running() {
                return Err(Problem("the signing process has ended by itself".into()));
            }
            thread::sleep(TURN);
            self.draw(phase, load);
        }
        Ok(())
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
        println!("-- {text}");
    }

    /// Whether a member is whole and does its part of the work.
    pub(crate) fn takes_load(&self, number: usize) -> bool {
        let serial = self.lab.member(number).map(|member| member.serial).unwrap_or_default();
        let whole = self.states().iter().any(|state| state.serial == serial && state.is_whole());
        let most = self.usage.iter().map(|usage| usage.per_second).fold(0.0, f64::max);
        let own = self.usage.get(number.saturating_sub(1)).map_or(0.0, |usage| usage.per_second);
        whole && most > 0.0 && own >= most * LOAD_SHARE
    }

    fn states(&self) -> Vec<MemberState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn measure(&mut self, signatures: u64) {
        let span = self.measured.elapsed().as_secs_f64();
        if span < 1.0 {
            return;
        }
        self.measured = Instant::now();
        let last = std::mem::replace(&mut self.last, (self.measured, signatures));
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = |count: u64| count as f64 / span;
        self.rate = per_second(signatures.saturating_sub(last.1));
        for (usage, member) in self.usage.iter_mut().zip(self.lab.members()) {
            let ticks = member.processor_ticks();
            // After a restart the count begins again.
            let since = if ticks >= usage.ticks { ticks - usage.ticks } else { ticks };
            *usage = Usage { ticks, per_second: per_second(since) };
        }
    }

    fn draw(&mut self, phase: &str, load: &Load) {
        let tally = load.tally();
        self.measure(tally.signing.signatures);
        self.turns += 1;
        let states = self.states();
        let members: Vec<String> = (self.lab.members().iter().zip(&self.usage))
            .map(|(member, usage)| {
                let state = states.iter().find(|state| state.serial == member.serial);
                let word = match state {
                    _ if !member.is_running() => "dead",
                    Some(state) if state.is_whole() => "alive",
                    Some(state) if state.status == "alive" => "recovering",
                    _ => "down",
                };
                // A tick is a hundredth of a second on Linux, so ticks per second are per cent of one processor.
                format!("hsm{} {word} {:.0}%", member.number, usage.per_second)
            })
            .collect();
        let line = format!(
            "{:>6.0} sig/s  {} signatures  {} errors  stall {} ms | tool {} tls {} | {} | {phase}",
            self.rate,
            tally.signing.signatures,
            tally.errors(),
            tally.signing.stall_us / 1000,
            tally.tool.runs,
            tally.handshakes.runs,
            members.join("  ")
        );
        if self.terminal {
            print!("\r\x1b[2K{line}");
            // A terminal that has gone needs no line.
            let _ = std::io::stdout().flush();
        } else if self.turns.is_multiple_of(PLAIN_TURNS) {
            println!("{line}");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // It ends within one question to the members.
            let _ = watcher.join();
        }
        if self.terminal {
            println!();
        }
    }
}
