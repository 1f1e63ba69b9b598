//! Repair (HA 4.6): members that hold a hundred thousand objects each and differ in ten, brought together by `vtl haAdmin
//! synchronize` and by the admission of a member that returns, under signing threads.
//!
//! ```text
//! one member alone is filled -- synchronize copies to two empty ones -- ten differences, synchronize -- ten, admission
//! ```
//! Ten differences are six records that one member lacks and four that it still holds though they were destroyed.
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::application::{self, Opened, said};
use super::figures::{Figure, millis};
use super::load::Load;
use crate::lab::{LABEL, Lab};
use crate::problem::Problem;
use crate::process::{self, Background};

/// Records of a filled member: two for each pair.
const PAIRS: usize = 50_000;
const PAIRS_SHORT: usize = 2_500;
/// Threads that fill.
const THREADS: usize = 8;
/// The label of the key that is signed with.
const KEY: &str = "repair-key";
/// The member that is away.
const AWAY: usize = 3;
/// How long a copy of everything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The application that makes and destroys pairs: `create N`, `destroy N` (of those made, the first) or `key` on a line,
/// answered when it is done.
///
/// # Errors
/// When a call fails.
pub fn run() -> Result<(), Problem> {
    let opened = application::open()?;
    let mut made = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (verb, count) = line.split_once(' ').unwrap_or((&line, "1"));
        let count: usize = count.parse().map_err(|_| Problem(format!("wanted a number, found {count:?}")))?;
        match verb {
            "create" => made.extend(create(&opened, count)?),
            "destroy" => {
                for (public, private) in made.drain(..count.min(made.len())) {
                    opened.module.destroy(opened.session, public).map_err(said)?;
                    opened.module.destroy(opened.session, private).map_err(said)?;
                }
            }
            "key" => drop(opened.module.pair(opened.session, KEY).map_err(said)?),
            _ => return Err(Problem(format!("wanted create, destroy or key, found {verb:?}"))),
        }
        application::tell(&made.len())?;
    }
    Ok(())
}

type Pair = (cryptoki_sys::CK_OBJECT_HANDLE, cryptoki_sys::CK_OBJECT_HANDLE);

fn create(opened: &Opened, count: usize) -> Result<Vec<Pair>, Problem> {
    let left = AtomicUsize::new(count);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let work = || -> Result<Vec<Pair>, Problem> {
        let session = opened.module.writing_session(opened.slot).map_err(said)?;
        let mut made = Vec::new();
        while take() {
            made.push(opened.module.pair(session, "repair").map_err(said)?);
        }
        Ok(made)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS.min(count)).map(|_| scope.spawn(work)).collect();
        let mut made = Vec::new();
        for worker in workers {
            made.extend(worker.join().map_err(|_| Problem("a thread panicked".into()))??);
        }
        Ok(made)
    })
}

/// That application, from outside.
struct Objects {
    _process: Background,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Objects {
    fn start(lab: &Lab, configuration: &Path) -> Result<Self, Problem> {
        let own = std::env::current_exe()
            .map_err(|error| Problem(format!("our own program is not known: {error}")))?;
        let mut command = lab.command(own);
        command.env("ChrystokiConfigurationPath", configuration);
        command.arg("chaos-objects").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Background::start(&mut command)?;
        let pipes = (process.child().stdin.take(), process.child().stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err(Problem("the application has no standard input and output".into()));
        };
        Ok(Self { _process: process, input, output: BufReader::new(output) })
    }

    fn say(&mut self, line: &str) -> Result<(), Problem> {
        let mut answer = String::new();
        writeln!(self.input, "{line}")
            .and_then(|()| self.output.read_line(&mut answer))
            .map_err(|error| Problem(format!("{line}: the application has ended: {error}")))?;
        match answer.is_empty() {
            true => Err(Problem(format!("{line}: the application has ended"))),
            false => Ok(()),
        }
    }
}

/// A library in front of the C library, under which nothing is waited for until it is on the disk: for filling.
const HASTE: &str =
    "int fsync(int file) { (void)file; return 0; }\nint fdatasync(int file) { (void)file; return 0; }\n";

/// Fills the first member while the others are away.
fn fill(lab: &Lab, pairs: usize) -> Result<Duration, Problem> {
    for number in 1..=lab.members().len() {
        lab.kill(number)?;
    }
    let library = lab.dir().join("haste.so");
    let source = library.with_extension("c");
    fs::write(&source, HASTE).map_err(|error| Problem::at(&source, &error))?;
    process::run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source))?;
    lab.member(1)?.spawn_with(&lab.programs().hsmd(), &[("LD_PRELOAD", library.as_path())])?;
    lab.wait_ready(1)?;
    let alone = variant(lab, "alone", "Hatoki = {\n   MinimumCopies = available;\n}\n")?;
    let begun = Instant::now();
    let mut objects = Objects::start(lab, &alone)?;
    objects.say("key")?;
    objects.say(&format!("create {pairs}"))?;
    let took = begun.elapsed();
    drop(objects);
    // It puts everything on the disk when it ends in order.
    let member = lab.member(1)?;
    member.signal(rustix::process::Signal::TERM)?;
    member.wait_gone(Duration::from_secs(60))?;
    (1..=lab.members().len()).try_for_each(|number| lab.start(number))?;
    for path in [source, library] {
        fs::remove_file(&path).map_err(|error| Problem::at(&path, &error))?;
    }
    Ok(took)
}

/// The client's folder once more, with a section added to its configuration: of repeated keys the last one counts.
fn variant(lab: &Lab, name: &str, section: &str) -> Result<PathBuf, Problem> {
    let folder = lab.configuration().join(name);
    crate::lab::make_folder(&folder)?;
    process::run(Command::new("cp").arg("-a").arg(lab.configuration().join("cert")).arg(&folder))?;
    let (from, to) = (lab.configuration().join("Chrystoki.conf"), folder.join("Chrystoki.conf"));
    let text = fs::read_to_string(&from).map_err(|error| Problem::at(&from, &error))?;
    let here = format!("{}/", lab.configuration().display());
    let there = format!("{}/", folder.display());
    fs::write(&to, text.replace(&here, &there) + "\n" + section).map_err(|error| Problem::at(&to, &error))?;
    Ok(folder)
}

/// Makes ten differences between one member and the others.
fn differ(lab: &Lab, objects: &mut Objects) -> Result<(), Problem> {
    objects.say("create 2")?;
    lab.kill(AWAY)?;
    objects.say("destroy 2")?;
    objects.say("create 3")
}

/// `vtl haAdmin VERB` on the group, as JSON.
fn admin(lab: &Lab, verb: &str) -> Result<Value, Problem> {
    let mut command = lab.vtl();
    command.args(["haAdmin", verb, "-group", LABEL, "--json"]).stdin(Stdio::null());
    // A difference is an exit code of its own.
    let output = command.output().map_err(|error| Problem(format!("vtl cannot be run: {error}")))?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Problem(format!("vtl haAdmin {verb}: {error}\n{}", String::from_utf8_lossy(&output.stderr)))
    })
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03} s", time.as_secs(), time.subsec_millis())
}

/// Plays it on a lab of three.
pub(super) fn figure(lab: &Lab, short: bool) -> Result<Figure, Problem> {
    let pairs = if short { PAIRS_SHORT } else { PAIRS };
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    let filled = fill(lab, pairs)?;
    lines.push((format!("{} objects made on one member, eight threads", 2 * pairs), seconds(filled)));
    let begun = Instant::now();
    admin(lab, "synchronize")?;
    lines.push(("all of them copied to two empty members by synchronize".into(), seconds(begun.elapsed())));
    lab.wait_equal(PATIENCE)?;
    // Who signs repairs nothing, and has not made the key: then what happens is the work of synchronize.
    let idle = variant(lab, "idle", &format!("HASynchronize = {{\n   {LABEL} = 0;\n}}\n"))?;
    let mut load = Load::start_with(lab, &["--key", KEY], &idle)?;
    let usual = usual(&mut load, short)?;
    let mut objects = Objects::start(lab, &lab.configuration())?;
    differ(lab, &mut objects)?;
    drop(objects);
    lab.start(AWAY)?;
    let compared = admin(lab, "compare")?;
    let found = compared["records_that_differ"].as_u64();
    if found != Some(10) {
        faults.push(format!("wanted 10 differences before synchronize, found {found:?}"));
    }
    load.mark()?;
    let begun = Instant::now();
    let moved = admin(lab, "synchronize")?["moved"].clone();
    let took = begun.elapsed();
    let during = load.mark()?;
    lab.wait_equal(PATIENCE)?;
    drop(load);
    lines.push((format!("10 differences ({moved} records carried) repaired by synchronize"), seconds(took)));
    let p999 = |lines: &mut Vec<_>, during: &application::Report, usual: &application::Report| {
        let value = format!("{} (before {})", millis(during.p999_us), millis(usual.p999_us));
        lines.push(("p99.9 of eight signing threads meanwhile".to_owned(), value));
    };
    p999(&mut lines, &during, &usual);
    faults.extend((during.errors > 0).then(|| format!("{} errors during synchronize", during.errors)));
    // The same once more, and now the applications repair the one that returns.
    let mut load = Load::start_with(lab, &["--key", KEY], &lab.configuration())?;
    let usual = self::usual(&mut load, short)?;
    let mut objects = Objects::start(lab, &lab.configuration())?;
    differ(lab, &mut objects)?;
    load.mark()?;
    let begun = Instant::now();
    lab.start(AWAY)?;
    lab.wait_equal(PATIENCE)?;
    let took = begun.elapsed();
    let during = load.mark()?;
    lines.push(("10 differences repaired by admission, from the start of hsmd".into(), seconds(took)));
    p999(&mut lines, &during, &usual);
    faults.extend((during.errors > 0).then(|| format!("{} errors during admission", during.errors)));
    let objects = lab.states()?.iter().map(|state| state.objects.unwrap_or(0)).min().unwrap_or(0);
    let measures = vec![("objects", objects)];
    Ok(Figure { name: "repair", lines, faults, measures })
}

fn usual(load: &mut Load, short: bool) -> Result<application::Report, Problem> {
    load.mark()?;
    thread::sleep(Duration::from_secs(if short { 1 } else { 5 }));
    load.mark()
}
