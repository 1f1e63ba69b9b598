//! `cargo xtask`: everything that is run from a clone.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xtask::lab::{Lab, Network, Wanted};
use xtask::problem::Problem;
use xtask::{bench, chaos, check, demo, docs, lab, signing};

/// Demo, lab and test of Hatoki.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Three appliances, real clients, eight signing threads, and one appliance that is killed and comes back.
    Demo {
        /// Leaves the lab running and prints how to try other programs on it.
        #[arg(long)]
        keep: bool,
        /// Folder of the lab; one of its own under the system's temporary folder by default.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Uses the debug build, for work on the demo itself.
        #[arg(long, hide = true)]
        debug: bool,
    },
    /// Everything that must hold before a commit: format, lints, unit, contract and process tests, real clients.
    Test,
    /// Seeds of the simulated world (docs/simulation.md): `--seeds N`, `--seed N` in words, `--bug NAME`; with `--links` the
    /// links alone, with `--whole` all of it in one run.
    Simulate {
        /// Handed on to the program `simulate`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Appliances on the loopback addresses of this host, with a client that is ready to use them.
    Lab {
        #[command(subcommand)]
        verb: LabVerb,
    },
    /// Renders docs/functions.md and docs/mechanisms.md from the tables in `spec`.
    Docs {
        /// Changes nothing and fails when a page differs.
        #[arg(long)]
        check: bool,
    },
    /// One fault after the other under eight signing threads and a creator; writes the table of docs/ha.md.
    Chaos {
        /// Seconds in the place of minutes; writes no table.
        #[arg(long)]
        short: bool,
        /// Only these faults, by their names; writes no table.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Folder of the labs; one of its own under the system's temporary folder by default.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Uses the debug build.
        #[arg(long, hide = true)]
        debug: bool,
    },
    /// A group of local members beside SoftHSM2 and the cryptographic library alone, in turn; writes docs/performance.md.
    Bench {
        /// Only cells and bars whose names contain one of these, such as `p256-sign/32t/1cpu`; writes no page.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Short windows, and only what the bars need.
        #[arg(long)]
        quick: bool,
        /// Ends with 1 when a bar is missed.
        #[arg(long)]
        check: bool,
        /// Prints JSON in the place of the tables.
        #[arg(long)]
        json: bool,
        /// Folder of the labs and the token; one of its own under the system's temporary folder by default.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Uses the debug build; writes no page.
        #[arg(long, hide = true)]
        debug: bool,
    },
    /// Counts the instructions of a call over a null link and compares them with benches/instructions.json.
    Instructions {
        /// Records the count.
        #[arg(long)]
        record: bool,
    },
    /// The application of `chaos`: a process of its own, so that the module reads its own environment.
    #[command(hide = true)]
    ChaosLoad {
        #[arg(long, default_value_t = 8)]
        threads: usize,
        /// Signs with RSA-2048 instead of P-256.
        #[arg(long)]
        rsa: bool,
        /// Signs with the P-256 key of this label, and creates and destroys nothing.
        #[arg(long, conflicts_with = "rsa")]
        key: Option<String>,
    },
    /// The application of `chaos` that is asked for more than can be had.
    #[command(hide = true)]
    ChaosOverload {
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// The application of `chaos` that makes and destroys pairs as it is told.
    #[command(hide = true)]
    ChaosObjects,
    /// The fault proxies of a lab.
    #[command(hide = true)]
    LabProxy {
        #[command(flatten)]
        folder: Folder,
    },
    /// The demo's signing threads: a process of their own, so that the module reads its own environment.
    #[command(hide = true)]
    SignLoop {
        #[arg(long, default_value_t = 8)]
        threads: usize,
    },
}

#[derive(Subcommand)]
enum LabVerb {
    /// Starts appliances and sets everything up; on a folder with a stopped lab, starts that one again.
    Up {
        /// How many appliances, 1 to 9.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        members: u8,
        #[command(flatten)]
        folder: Folder,
        /// Uses the release build.
        #[arg(long)]
        release: bool,
        /// Uses the programs that are built already.
        #[arg(long)]
        no_build: bool,
        /// Puts a fault proxy before each appliance, for `lab fault`.
        #[arg(long)]
        proxy: bool,
        /// Gives each appliance a network namespace of its own, for `lab fault` by the kernel; root only.
        #[arg(long, conflicts_with = "proxy")]
        netns: bool,
    },
    /// Shows the appliances' processes and the group as the client sees it.
    Status {
        #[command(flatten)]
        folder: Folder,
    },
    /// Kills an appliance with SIGKILL.
    Kill(Member),
    /// Freezes an appliance with SIGSTOP: it stays connected and answers nothing.
    Stop(Member),
    /// Lets a frozen appliance go on.
    Cont(Member),
    /// Starts a killed appliance.
    Start(Member),
    /// Faults of the network. Of a lab made with --proxy: `lab fault 2 delay=5ms`, `blackhole`, `trickle`, `oneway=up`,
    /// `loss=5%`, `refuse`, `cut`, `clear`; `lab fault all clear`; `lab fault arm half-reply min=110`. Of one made with
    /// --netns: `blackhole`, `drop`, `oneway=up`, `oneway=down`, `clear`; `delay` and `loss` where the kernel has netem.
    Fault {
        /// The member or `all`, then the fault; or `arm` and the cut.
        #[arg(required = true)]
        words: Vec<String>,
        #[command(flatten)]
        folder: Folder,
    },
    /// Stops all appliances in order and removes what `up` made.
    Down {
        #[command(flatten)]
        folder: Folder,
        /// Leaves keys, configurations and logs; `up` starts the lab again.
        #[arg(long)]
        keep_files: bool,
    },
}

#[derive(Args)]
struct Folder {
    /// Folder of the lab.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct Member {
    /// Which appliance, from 1.
    number: usize,
    #[command(flatten)]
    folder: Folder,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), Problem> {
    match task {
        Task::Demo { keep, dir, debug } => demo::run(keep, dir, !debug),
        Task::Test => check::run(),
        Task::Lab { verb } => run_lab(verb),
        Task::Docs { check } => docs::run(check),
        Task::Chaos { short, only, dir, debug } => chaos::run(short, &only, dir, !debug),
        Task::Bench { only, quick, check, json, dir, debug } => {
            bench::run(&bench::Options { only, quick, check, json, dir, release: !debug })
        }
        Task::Instructions { record } => bench::instructions::run(record),
        Task::ChaosLoad { threads, rsa, key } => {
            use chaos::application::Key;
            let made = if rsa { Key::Rsa } else { Key::P256 };
            chaos::application::run(threads, &key.map_or(made, Key::Named))
        }
        Task::ChaosOverload { seconds } => chaos::overload::run(seconds),
        Task::ChaosObjects => chaos::repair::run(),
        Task::LabProxy { folder } => lab::proxied::serve(&folder.dir),
        Task::Simulate { arguments } => check::simulate(&arguments),
        Task::SignLoop { threads } => signing::run(threads),
    }
}

fn run_lab(verb: LabVerb) -> Result<(), Problem> {
    match verb {
        LabVerb::Up { members, folder, release, no_build, proxy, netns } => {
            let build = !no_build;
            let network = match (proxy, netns) {
                (true, _) => Network::Proxied,
                (false, true) => Network::Namespaces,
                (false, false) => Network::Loopback,
            };
            let wanted = Wanted { members: usize::from(members), dir: folder.dir, release, build, network };
            let lab = Lab::up(&wanted, &lab::say)?;
            lab::say(&format!("\nready:  . {}/env.sh", lab.dir().display()));
            Ok(())
        }
        LabVerb::Status { folder } => Lab::open(&folder.dir)?.show_status(),
        LabVerb::Kill(member) => Lab::open(&member.folder.dir)?.kill(member.number),
        LabVerb::Stop(member) => Lab::open(&member.folder.dir)?.freeze(member.number),
        LabVerb::Cont(member) => Lab::open(&member.folder.dir)?.thaw(member.number),
        LabVerb::Start(member) => Lab::open(&member.folder.dir)?.start(member.number),
        LabVerb::Fault { words, folder } => {
            lab::say(&Lab::open(&folder.dir)?.fault(&words.join(" "))?);
            Ok(())
        }
        LabVerb::Down { folder, keep_files } => Lab::open(&folder.dir)?.down(keep_files),
    }
}
