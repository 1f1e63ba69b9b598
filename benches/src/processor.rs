//! Processor time: of this process, of the calling thread, of other processes.

use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What this process has used, in nanoseconds.
pub fn of_process() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// What the calling thread has used, in nanoseconds.
pub fn of_thread() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// What other processes have used, the threads that live now, in nanoseconds. Linux tells it in
/// `/proc/PID/task/*/schedstat`; 0 where there is none.
pub fn of_others(processes: &[u32]) -> u64 {
    processes.iter().map(|process| of_other(*process)).sum()
}

fn of_other(process: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_every_count() {
        let (process, thread, others) = (of_process(), of_thread(), of_others(&[std::process::id()]));
        let mut sum = 0u64;
        while of_thread() < thread + 30_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(of_process() >= process + 29_000_000);
        // The scheduler's own count goes on by ticks.
        assert!(others == 0 || of_others(&[std::process::id()]) > others);
    }
}
