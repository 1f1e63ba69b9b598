//! The demo: three appliances, real clients, eight signing threads, and one appliance that is killed and comes back.
mod clients;
mod load;
mod screen;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clients::Clients;
use load::Load;
use screen::Screen;

use crate::lab::{Guard, Lab, Network, Wanted, make_folder, say};
use crate::problem::Problem;
use crate::{packages, process};

/// How many appliances.
const MEMBERS: usize = 3;
/// Where the module of the signing threads logs.
const SIGNING_LOG: &str = "signing.log";
/// The one that is killed.
const VICTIM: usize = 2;
/// Load before the kill.
const BEFORE: Duration = Duration::from_secs(5);
/// Load while the appliance is gone.
const WITHOUT: Duration = Duration::from_secs(6);
/// Load after it has taken load again.
const AFTER: Duration = Duration::from_secs(4);
/// How long the return may take.
const RETURN: Duration = Duration::from_secs(40);

/// Set by Ctrl-C; everything that waits looks at it.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn install() -> Result<Self, Problem> {
        let interrupt = Self(Arc::new(AtomicBool::new(false)));
        let seen = interrupt.clone();
        ctrlc::set_handler(move || seen.0.store(true, Ordering::Release))
            .map_err(|error| Problem(format!("Ctrl-C cannot be caught: {error}")))?;
        Ok(interrupt)
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.0.load(Ordering::Acquire) {
            true => Err(Problem("interrupted".into())),
            false => Ok(()),
        }
    }
}

/// Runs the demo.
///
/// # Errors
/// When a step fails, an application saw an error, or the group is not whole in the end.
pub fn run(keep: bool, dir: Option<PathBuf>, release: bool) -> Result<(), Problem> {
    packages::need(packages::FOR_DEMO)?;
    let interrupt = Interrupt::install()?;
    let dir = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("hatoki-demo-{}", std::process::id())));
    heading(if release {
        "release build and a lab of three appliances"
    } else {
        "debug build and a lab of three appliances"
    });
    let lab = Lab::up(
        &Wanted { members: MEMBERS, dir, release, build: true, network: Network::Loopback },
        &|step| say(step),
    )?;
    let start = Instant::now();
    // From here on every way out takes the lab down, unless it shall stay.
    let guard = Guard(lab);
    let outcome = show(&guard.0, &interrupt, start);
    if keep && interrupt.check().is_ok() {
        let lab = guard.0.clone();
        std::mem::forget(guard);
        explain(&lab);
    }
    outcome
}

fn show(lab: &Lab, interrupt: &Interrupt, start: Instant) -> Result<(), Problem> {
    heading("the client's view");
    shown(lab.vtl().arg("verify"))?;
    shown(lab.vtl().args(["haAdmin", "show"]))?;
    interrupt.check()?;
    let work = lab.dir().join("demo");
    make_folder(&work)?;
    let outcome = keys_and_load(lab, interrupt, &work, start);
    let _ = std::fs::remove_dir_all(&work);
    outcome
}

fn keys_and_load(lab: &Lab, interrupt: &Interrupt, work: &Path, start: Instant) -> Result<(), Problem> {
    let clients = Clients::new(lab, work);
    heading("pkcs11-tool makes keys and uses them, openssl checks");
    clients.generate_and_use(interrupt)?;
    heading(
        "eight signing threads, pkcs11-tool in a loop, openssl s_server: one appliance is killed and comes back",
    );
    let load = Load::start(lab, &clients)?;
    let outcome = kill_and_return(lab, interrupt, &load);
    let tally = load.stop().and_then(|tally| outcome.map(|()| tally)).inspect_err(|_| {
        if interrupt.check().is_ok() {
            eprint!("the module's log:\n{}", clients.said(SIGNING_LOG));
        }
    })?;
    heading("afterwards");
    lab.wait_equal(RETURN)?;
    shown(lab.vtl().args(["haAdmin", "show"]))?;
    println!("{tally}");
    println!("demo took {:.0} s after the build", start.elapsed().as_secs_f64());
    match tally.errors() {
        0 => Ok(()),
        errors => Err(Problem(format!("wanted no application-visible error, found {errors}"))),
    }
}

/// The middle of the demo: load, kill, load, start, recovery, load.
fn kill_and_return(lab: &Lab, interrupt: &Interrupt, load: &Load) -> Result<(), Problem> {
    let mut screen = Screen::new(lab);
    screen.run_for(BEFORE, "all three serve", load, interrupt)?;
    screen.note(&format!("hsm{VICTIM}: kill -9"));
    lab.kill(VICTIM)?;
    screen.run_for(WITHOUT, &format!("hsm{VICTIM} is dead"), load, interrupt)?;
    screen.note(&format!("hsm{VICTIM}: started again"));
    lab.start(VICTIM)?;
    let start = Instant::now();
    while !screen.takes_load(VICTIM) {
        if start.elapsed() > RETURN {
            return Err(Problem(format!(
                "hsm{VICTIM} does not take load again after {} s",
                RETURN.as_secs()
            )));
        }
        screen.run_for(Duration::from_millis(500), &format!("hsm{VICTIM} recovers"), load, interrupt)?;
    }
    screen.note(&format!(
        "hsm{VICTIM}: whole again and taking load, {:.1} s after its start",
        start.elapsed().as_secs_f64()
    ));
    screen.run_for(AFTER, "all three serve", load, interrupt)
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs a command, and shows it with what it says.
pub(crate) fn shown(command: &mut Command) -> Result<String, Problem> {
    let program =
        Path::new(command.get_program()).file_name().map(|name| name.to_string_lossy().into_owned());
    let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    println!("$ {} {}", program.unwrap_or_default(), words.join(" "));
    let output = process::run(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    Ok(text)
}

fn explain(lab: &Lab) {
    let dir = lab.dir().display();
    println!(
        "\nThe lab is still there. Try your own programs on it:\n\n    . {dir}/env.sh\n    pkcs11-tool --module \
         \"$P11_MODULE\" --token-label \"$P11_TOKEN_LABEL\" --login --pin \"$P11_PIN\" --list-objects\n    cargo xtask \
         lab kill 2 --dir {dir}\n    cargo xtask lab start 2 --dir {dir}\n    cargo xtask lab down --dir {dir}\n"
    );
}
