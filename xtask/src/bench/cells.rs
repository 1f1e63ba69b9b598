//! What is measured: on how many processors, which work, by how many threads.
use serde::Serialize;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cell {
    /// Processors that all processes of the measurement share.
    pub(super) cpus: usize,
    /// The work, as `hatoki-load` names it.
    pub(super) work: &'static str,
    /// Calling threads.
    pub(super) threads: usize,
}

impl Cell {
    pub(super) const fn new(cpus: usize, work: &'static str, threads: usize) -> Self {
        Self { cpus, work, threads }
    }

    /// Its name, for people and `--only`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}t/{}cpu", self.work, self.threads, self.cpus)
    }

    /// MiB that one operation carries there, and back; none for work that carries less.
    pub(super) fn mib(&self) -> Option<u32> {
        BULK.iter().find(|(work, _)| *work == self.work).map(|(_, mib)| *mib)
    }
}

const WORKS: &[&str] = &[
    "p256-sign",
    "rsa2048-sign",
    "rsa2048-verify",
    "hmac-1k",
    "gcm-1k",
    "gcm-1k-decrypt",
    "gcm-1m",
    "cbc-1k",
    "cbc-1m",
    "digest-1k",
    "session",
    "random-32",
    "p256-verify",
    "find",
    "attributes",
    "round-trip",
];

/// Work that carries much data, and how many MiB an operation of it does.
const BULK: &[(&str, u32)] = &[("gcm-1m", 1), ("cbc-1m", 1), ("stream-256m", 256), ("stream-1g", 1024)];

const THREADS: &[usize] = &[1, 2, 8, 32];

/// What the bars are about.
const BARRED: &[Cell] = &[
    Cell::new(1, "p256-sign", 1),
    Cell::new(1, "p256-sign", 32),
    Cell::new(1, "rsa2048-sign", 8),
    Cell::new(1, "gcm-1k", 32),
    Cell::new(1, "digest-1k", 1),
    Cell::new(1, "session", 1),
    Cell::new(1, "random-32", 1),
    Cell::new(1, "round-trip", 1),
    Cell::new(1, "round-trip", 32),
    Cell::new(2, "p256-sign", 32),
    Cell::new(2, "rsa2048-sign", 8),
];

/// What a short run measures without a bar: the rest of the operations, and much data.
const MORE_QUICK: &[Cell] = &[
    Cell::new(1, "login", 1),
    Cell::new(1, "rsa2048-verify", 1),
    Cell::new(1, "hmac-1k", 1),
    Cell::new(1, "gcm-1k-decrypt", 1),
    Cell::new(1, "find", 1),
    Cell::new(1, "gcm-1m", 1),
    Cell::new(1, "cbc-1m", 1),
    Cell::new(1, "stream-256m", 1),
    Cell::new(2, "gcm-1m", 1),
    Cell::new(2, "cbc-1m", 1),
    Cell::new(2, "stream-256m", 1),
];

/// All cells, or with `quick` those of the bars and few others. A login is one of the whole process: one thread does it.
pub(super) fn all(quick: bool) -> Vec<Cell> {
    match quick {
        true => [BARRED, MORE_QUICK].concat(),
        false => [1, 2]
            .into_iter()
            .flat_map(|cpus| WORKS.iter().map(move |work| (cpus, *work)))
            .flat_map(|(cpus, work)| THREADS.iter().map(move |threads| Cell::new(cpus, work, *threads)))
            .chain(
                [1, 2]
                    .into_iter()
                    .flat_map(|cpus| ["login", "stream-1g"].map(|work| Cell::new(cpus, work, 1))),
            )
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_measures_a_part_of_a_full_one() {
        let full = all(false);
        // A shorter stream stands for the long one.
        let same = |cell: &Cell| {
            if cell.work == "stream-256m" { Cell { work: "stream-1g", ..*cell } } else { *cell }
        };
        assert!(all(true).iter().all(|cell| full.contains(&same(cell))));
        assert_eq!(full.len(), 2 * WORKS.len() * THREADS.len() + 4);
        assert_eq!(full[0].name(), "p256-sign/1t/1cpu");
    }
}
