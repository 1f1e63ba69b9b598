//! The simulated network as what a run asks of its ways: it stands behind the seam itself.
use std::sync::Arc;

use client::{InitializeOptions, Module};
use spec::platform::Platform;
use spec::seam::Seam;

use super::{MS, Network};
use crate::books::Books;
use crate::breaks::Breaks;
use crate::platform::Simulated;
use crate::watch::LinkEpoch;
use crate::ways::{Ways, configuration};

impl Ways for Network {
    fn books(&self) -> &Books {
        &self.books
    }

    fn start(&self, module: &Module, platform: &Arc<Simulated>, call_ms_max: u64) {
        let seam = self.own().seam(platform.process());
        let options = InitializeOptions { may_create_threads: true };
        let begun =
            module.initialize_over(seam, platform.clone(), configuration(call_ms_max, "", ""), options);
        begun.expect("a fresh module takes a configuration");
    }

    fn operator(&self, platform: &Arc<Simulated>) -> (Arc<dyn Platform>, Arc<dyn Seam>) {
        (platform.clone(), self.own().seam(platform.process()))
    }

    fn connections(&self, process: usize) -> Vec<LinkEpoch> {
        let state = self.state();
        let up = state.links.iter().filter(|((of, _), link)| *of == process && link.up);
        up.map(|((process, member), link)| (*process, *member, link.epoch)).collect()
    }

    fn was_lonely(&self, process: usize) -> bool {
        self.state().lonely.contains(&process)
    }

    fn may_fork(&self) -> bool {
        true
    }

    fn forked(&self, process: usize) {
        self.own().forked(process);
    }

    /// What is on its way may still be carried out.
    fn killed(&self, _: usize) {}

    fn pause_process(&self, process: usize, nanoseconds: u64) {
        self.world.pause(process, nanoseconds);
    }

    fn pause_member(&self, member: usize, until: u64) {
        self.members[member].pause(until);
    }

    fn break_link(&self, process: usize, member: usize) {
        self.own().break_link(process, member);
    }

    fn break_before_reply(&self, process: usize, member: usize, breaks: Breaks) {
        let mut state = self.state();
        state.links.get_mut(&(process, member)).expect("every pair has a link").breaks = Some(breaks);
    }

    fn cut(&self, process: usize, member: usize, silently: bool, nanoseconds: u64) {
        self.own().cut(process, member, silently, nanoseconds);
    }

    fn stall(&self, process: usize, member: usize, there: bool, nanoseconds: u64) {
        self.own().stall(process, member, there, nanoseconds);
    }

    fn member_ends(&self, member: usize, processes: usize, may_be_late: bool) {
        let own = self.own();
        for process in 1..=processes {
            if may_be_late && self.world.chance(|chance| chance.once_in(4)) {
                let delay = self.world.chance(|chance| chance.between(50, 1_500));
                let network = own.clone();
                self.world.after(delay * MS, move || network.break_link(process, member));
            } else {
                own.break_link(process, member);
            }
        }
    }

    /// Who is not connected tries again and again.
    fn member_begins(&self, _: usize) {}

    /// There is nothing below.
    fn begin_faults(&self) {}

    fn calm(&self) {
        let mut state = self.state();
        state.calm = true;
        for link in state.links.values_mut() {
            (link.cut, link.breaks, link.stalled_there, link.stalled_back) = (false, None, 0, 0);
        }
        drop(state);
        self.books.calm();
    }

    /// Links are up again within half a second, and calls wait so long.
    fn settle(&self, _: &[usize]) {}

    /// There is nothing to be gone.
    fn end(&self) {}
}
