//! `cargo xtask bench`: a group of local members over mutual TLS beside SoftHSM2 in the process and the cryptographic library
//! alone, in turn; the table and the picture of docs/performance.md.
//!
//! ```text
//! cells       what is measured: processors, work, threads       bars   what is wanted of it
//!    \                                                           /
//! on one processor, then on two:  labs, token, contestants      /
//!    each cell: window of A, of B, of C ...; of A, of B ...    /
//!      \                                                      /
//!       results -- medians, ratios within a turn ------- judged -- table, picture, JSON
//! dispatch    the module over a null link                instructions    its count, guarded by `cargo xtask test`
//! ```
mod bars;
mod cells;
mod contestant;
mod dispatch;
mod fairness;
pub mod instructions;
mod picture;
mod pin;
mod results;
mod softhsm;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::lab::{Guard, Lab, Network, Wanted};
use crate::packages;
use crate::problem::Problem;
use crate::{cargo, process};
use cells::Cell;
use contestant::{Contestant, LIBRARY, LINK, SOFTHSM, TLS, group_of};
use results::{Results, Series, Window};

/// What is wanted of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only cells and bars whose names contain one of these; writes no page.
    pub only: Vec<String>,
    /// Short windows, and only what the bars need.
    pub quick: bool,
    /// Errs when a bar is missed.
    pub check: bool,
    /// Prints JSON in the place of the table.
    pub json: bool,
    /// Folder of labs and token.
    pub dir: Option<PathBuf>,
    /// Uses the release build.
    pub release: bool,
}

/// Measured on so many processors, one after the other.
const PROCESSORS: [usize; 2] = [1, 2];
/// What contestants say, in the folder of their stage.
const LOG: &str = "contestants.log";

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
struct Pace {
    warm: Duration,
    span: Duration,
    windows: usize,
}

const FULL: Pace = Pace { warm: Duration::from_millis(100), span: Duration::from_millis(300), windows: 7 };
const QUICK: Pace = Pace { warm: Duration::from_millis(60), span: Duration::from_millis(200), windows: 5 };

/// Measures, prints and, when all of it was measured, writes the page.
///
/// # Errors
/// When something cannot be measured; with `check`, when a bar is missed.
pub fn run(options: &Options) -> Result<(), Problem> {
    packages::need(packages::FOR_BENCH)?;
    let bars = bars::chosen(&options.only);
    let is_barred = |cell: &Cell| bars.iter().any(|bar| bar.cell() == Some(*cell));
    let mut cells = cells::all(options.quick);
    cells.retain(|cell| is_named(&cell.name(), &options.only) || is_barred(cell));
    let fair: Vec<Cell> = PROCESSORS
        .into_iter()
        .flat_map(fairness::cells)
        .filter(|(_, name)| is_named(name, &options.only))
        .map(|(cell, _)| cell)
        .collect();
    if cells.is_empty() && bars.is_empty() && fair.is_empty() {
        return Err(Problem(format!("wanted names of cells or bars, found {:?}", options.only.join(","))));
    }
    let programs = build(options.release)?;
    let dir = options.dir.clone();
    let dir =
        dir.unwrap_or_else(|| std::env::temp_dir().join(format!("hatoki-bench-{}", std::process::id())));
    crate::lab::make_folder(&dir)?;
    crate::chaos::take_down_on_interrupt(&dir)?;
    let pace = if options.quick { QUICK } else { FULL };
    let mut results = measure_all(&dir, &programs, (&cells, &fair), pace, options)?;
    if bars.iter().any(|bar| bar.needs_dispatch()) {
        results.dispatch = dispatch::measure(&programs, pace.windows)?;
        results.locks = dispatch::locks()?;
    }
    clear(&dir);
    let judged = bars::judge(&bars, &results);
    match options.json {
        true => println!("{}", table::json(&judged, &results)),
        false => println!("{}", table::text(&judged, &results)),
    }
    if options.only.is_empty() && options.release {
        table::write(&judged, &results, options.quick)?;
    }
    if !results.failures.is_empty() {
        return Err(Problem(format!("could not be measured: {}", results.failures.join("; "))));
    }
    let missed = judged.iter().filter(|judged| judged.is_met() == Some(false)).count();
    match options.check && missed > 0 {
        true => Err(Problem(format!("wanted every bar met, found {missed} missed"))),
        false => Ok(()),
    }
}

/// Removes what was left of the stages that are over; folders in which anything else lies stay.
fn clear(dir: &Path) {
    for stage in PROCESSORS.map(|cpus| dir.join(format!("{cpus}"))) {
        let _ = std::fs::remove_file(stage.join(LOG));
        let _ = std::fs::remove_dir(stage);
    }
    let _ = std::fs::remove_dir(dir);
}

/// Whether a name contains one of the words, or there are no words.
fn is_named(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| name.contains(word.as_str()))
}

/// Builds the measuring programs beside those of a lab; their folder. Started by itself (as the tests do), this program uses
/// those that lie beside it.
fn build(release: bool) -> Result<PathBuf, Problem> {
    if !cargo::is_run_by_cargo() {
        return Ok(cargo::Programs::get(release, false)?.folder().to_owned());
    }
    let mut command = cargo::cargo();
    command.args(["build", "-p", "benches", "--bins", "-p", "appliance", "-p", "vtl", "-p", "hatoki"]);
    if release {
        command.arg("--release");
    }
    match process::show(&mut command)? {
        true => Ok(cargo::target()?.join(if release { "release" } else { "debug" })),
        false => Err(Problem("the build failed".into())),
    }
}

fn measure_all(
    dir: &Path,
    programs: &Path,
    (cells, fair): (&[Cell], &[Cell]),
    pace: Pace,
    options: &Options,
) -> Result<Results, Problem> {
    let mut results = Results::default();
    let allowed = pin::allowed()?;
    let bar = progress(cells.len() + fair.len());
    for cpus in PROCESSORS {
        let of =
            |all: &[Cell]| -> Vec<Cell> { all.iter().copied().filter(|cell| cell.cpus == cpus).collect() };
        let (here, fair) = (of(cells), of(fair));
        if here.is_empty() && fair.is_empty() {
            continue;
        }
        if allowed.len() < cpus {
            results.failures.push(format!("wanted {cpus} processors, found {}", allowed.len()));
            continue;
        }
        // Whatever is started from here on stays on them: appliances choose their threads by what they find.
        pin::to(&allowed[allowed.len() - cpus..])?;
        let stage = Stage::new(&dir.join(format!("{cpus}")), programs, options);
        let outcome = stage.and_then(|mut stage| {
            stage.play(&here, pace, &bar, &mut results)?;
            stage.compare(&fair, pace, &bar, &mut results)
        });
        pin::to(&allowed)?;
        outcome?;
    }
    bar.finish_and_clear();
    Ok(results)
}

fn progress(cells: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}");
    let bar = ProgressBar::new(cells as u64);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// All contestants, alive on the same processors. They end before the labs and the token do.
struct Stage {
    contestants: Vec<Contestant>,
    /// Another client of the group of two.
    neighbour: Option<Contestant>,
    /// A third one, which links the module instead of loading it: its allocations can be counted.
    counted: Option<Contestant>,
    _labs: Vec<Guard>,
    _token: softhsm::Token,
}

impl Stage {
    fn new(dir: &Path, programs: &Path, options: &Options) -> Result<Self, Problem> {
        crate::lab::make_folder(dir)?;
        let token = softhsm::Token::new(&dir.join("softhsm2"))?;
        let log = dir.join(LOG);
        let start = |name: &str, arguments: &[&str], environment: Vec<(&str, String)>, members: Vec<u32>| {
            Contestant::start(name, programs, arguments, environment, members, &log)
        };
        let mut contestants = vec![
            start(SOFTHSM, &["module"], token.environment(), vec![])?,
            start(LIBRARY, &["library"], vec![], vec![])?,
            start(TLS, &["tls"], vec![], vec![])?,
        ];
        let (mut labs, mut neighbour, mut counted) = (Vec::new(), None, None);
        let groups: &[usize] = if options.quick { &[2] } else { &[2, 1, 3] };
        for members in groups {
            let wanted = Wanted {
                members: *members,
                dir: dir.join(format!("lab{members}")),
                release: options.release,
                build: false,
                network: Network::Loopback,
            };
            let lab = Guard(Lab::up(&wanted, &|_| ())?);
            lab.0.wait_equal(Duration::from_secs(60))?;
            let hsmd = lab.0.members().iter().filter_map(|member| member.process());
            let hsmd: Vec<u32> = hsmd.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).collect();
            let arguments = ["module", "--token-objects"];
            contestants.push(start(&group_of(*members), &arguments, lab.0.environment(), hsmd.clone())?);
            if *members == 2 {
                contestants.push(start(LINK, &["link"], lab.0.environment(), hsmd.clone())?);
                let linked = ["linked", "--token-objects"];
                counted = Some(start("counted", &linked, lab.0.environment(), hsmd.clone())?);
                neighbour = Some(start("neighbour", &arguments, lab.0.neighbour()?, hsmd)?);
            }
            labs.push(lab);
        }
        Ok(Self { contestants, neighbour, counted, _labs: labs, _token: token })
    }

    /// What the group of two gives a client beside another one.
    fn compare(
        &mut self,
        cells: &[Cell],
        pace: Pace,
        bar: &ProgressBar,
        results: &mut Results,
    ) -> Result<(), Problem> {
        let own = group_of(2);
        let quiet = self.contestants.iter_mut().find(|contestant| contestant.name() == own);
        let (Some(quiet), Some(busy)) = (quiet, &mut self.neighbour) else { return Ok(()) };
        for cell in cells {
            bar.set_message(format!("fair/{}", cell.work));
            match fairness::measure((&mut *quiet, &mut *busy), *cell, pace)? {
                Ok(found) => results.fairness.push(found),
                Err(error) => results.failures.push(format!("fair/{}: {error}", cell.work)),
            }
            bar.inc(1);
        }
        Ok(())
    }

    /// Counts allocations: of the links in their own windows, of the group of two in one of the client that can.
    fn count(
        &mut self,
        cell: Cell,
        pace: Pace,
        series: &mut [Series],
        results: &mut Results,
    ) -> Result<(), Problem> {
        let own = group_of(2);
        for series in series {
            if series.contestant == LINK {
                series.allocations = Some(series.median(Window::allocations_each));
            }
            let Some(counted) = self.counted.as_mut().filter(|_| series.contestant == own) else { continue };
            match counted.run(cell, pace.warm, pace.span)? {
                Ok(window) => series.allocations = window.map(|window| window.allocations_each()),
                Err(error) => results.failures.push(format!("{} counted: {error}", cell.name())),
            }
        }
        Ok(())
    }

    /// Every cell: each contestant one window, then each the next.
    fn play(
        &mut self,
        cells: &[Cell],
        pace: Pace,
        bar: &ProgressBar,
        results: &mut Results,
    ) -> Result<(), Problem> {
        for cell in cells {
            bar.set_message(cell.name());
            let steal = pin::Steal::begin();
            let mut series: Vec<Series> =
                self.contestants.iter().map(|contestant| Series::of(contestant.name())).collect();
            for _ in 0..pace.windows {
                for (contestant, series) in self.contestants.iter_mut().zip(&mut series) {
                    if series.is_over {
                        continue;
                    }
                    match contestant.run(*cell, pace.warm, pace.span)? {
                        Ok(Some(window)) => series.windows.push(window),
                        Ok(None) => series.is_over = true,
                        Err(error) => {
                            series.is_over = true;
                            results.failures.push(format!("{} {}: {error}", cell.name(), contestant.name()));
                        }
                    }
                }
            }
            series.retain(|series| !series.windows.is_empty());
            let steal = steal.share();
            self.count(*cell, pace, &mut series, results)?;
            results.add(*cell, series, steal);
            bar.inc(1);
        }
        Ok(())
    }
}
