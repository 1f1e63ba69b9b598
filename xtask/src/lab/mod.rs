//! The lab: real appliances on the loopback addresses of this host, set up by the tools' own verbs, and a client that
//! is ready to use them.
//!
//! ```text
//! DIR/hsm1 .. hsmN/   hsmd.toml, data/, hsmd.log      one appliance each, on 127.0.0.1 .. 127.0.0.N
//! DIR/client/         Chrystoki.conf, cert/           what an application host has
//! DIR/neighbour/                                      the same for another client, when it was wanted
//! DIR/env.sh          what an application needs in its environment
//! DIR/lab.json        what the lab itself remembers
//! DIR/proxy.sock      control of the fault proxies, one before each appliance, when they were wanted
//! ```
//! With network namespaces an appliance stands behind an interface of its own instead of on a loopback address
//! (`spaces`).
mod member;
mod neighbour;
pub mod proxied;
mod reservation;
mod setup;
pub(crate) mod spaces;
mod started;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cargo::{self, Programs};
use crate::problem::Problem;
use crate::process;
pub(crate) use setup::{LABEL, make_folder};

pub use member::{Member, MemberState};

/// The lab that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How many appliances, 1 to 9.
    pub members: usize,
    /// The lab's folder; made when it is not there.
    pub dir: PathBuf,
    /// Whether to use the release build.
    pub release: bool,
    /// Whether to build first.
    pub build: bool,
    /// What lies between the client and the appliances.
    pub network: Network,
}

/// What lies between the client and the appliances of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The loopback interface.
    Loopback,
    /// A fault proxy before each appliance.
    Proxied,
    /// A network namespace for each appliance, behind a pair of virtual interfaces.
    Namespaces,
}

/// What the lab remembers: `lab.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Memory {
    /// The group's label, which is the token's.
    label: String,
    so_pin: String,
    co_pin: String,
    /// The folder of the programs.
    programs: PathBuf,
    members: Vec<Member>,
}

/// A lab in a folder.
#[derive(Clone, Debug)]
pub struct Lab {
    dir: PathBuf,
    memory: Memory,
}

/// Prints a step of the set-up. A reader that has gone must not leave half a lab.
pub fn say(step: &str) {
    let _ = writeln!(std::io::stdout(), "{step}");
}

/// How long an appliance may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(30);

impl Lab {
    /// Makes a lab, or starts a stopped one again. `say` hears each step.
    ///
    /// # Errors
    /// When a step fails; what was started is stopped again, and the logs stay.
    pub fn up(wanted: &Wanted, say: &dyn Fn(&str)) -> Result<Self, Problem> {
        make_folder(&wanted.dir)?;
        let dir = fs::canonicalize(&wanted.dir).map_err(|error| Problem::at(&wanted.dir, &error))?;
        if dir.join("lab.json").exists() {
            return Self::up_again(&dir, wanted, say);
        }
        if wanted.build && cargo::is_run_by_cargo() {
            say("building hsmd, hsm, vtl and the module");
        }
        let programs = Programs::get(wanted.release, wanted.build)?;
        setup::set_up(&dir, wanted, &programs, say)
    }

    fn up_again(dir: &Path, wanted: &Wanted, say: &dyn Fn(&str)) -> Result<Self, Problem> {
        let mut lab = Self::open(dir)?;
        if lab.memory.members.len() != wanted.members {
            return Err(Problem(format!(
                "wanted a lab of {} in {}, found one of {}; take it down first, or choose another folder",
                wanted.members,
                dir.display(),
                lab.memory.members.len()
            )));
        }
        lab.memory.programs = Programs::get(wanted.release, wanted.build)?.folder().to_owned();
        if lab.has_namespaces() && lab.members().iter().all(|member| !member.is_running()) {
            say("making the network namespaces again");
            spaces::make(lab.members())?;
        }
        if lab.is_proxied() && proxied::process(dir).is_none() {
            say("starting the proxies again");
            proxied::start(&lab)?;
        }
        for number in 1..=wanted.members {
            if !lab.member(number)?.is_running() {
                say(&format!("starting hsm{number} again"));
                lab.start(number)?;
            }
        }
        lab.save()?;
        Ok(lab)
    }

    /// Opens the lab in a folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Self, Problem> {
        let path = dir.join("lab.json");
        let text = fs::read_to_string(&path).map_err(|error| {
            Problem(format!(
                "wanted a lab in {}, found: {error}; make one with cargo xtask lab up",
                dir.display()
            ))
        })?;
        let memory =
            serde_json::from_str(&text).map_err(|error| Problem(format!("{}: {error}", path.display())))?;
        let dir = fs::canonicalize(dir).map_err(|error| Problem::at(dir, &error))?;
        Ok(Self { dir, memory })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of `Chrystoki.conf`.
    pub fn configuration(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The label of the group and so of the token.
    pub fn label(&self) -> &str {
        &self.memory.label
    }

    /// The Crypto Officer's PIN.
    pub fn pin(&self) -> &str {
        &self.memory.co_pin
    }

    /// The security officer's PIN.
    pub fn so_pin(&self) -> &str {
        &self.memory.so_pin
    }

    /// The programs that it runs.
    pub fn programs(&self) -> Programs {
        Programs::within(self.memory.programs.clone())
    }

    /// Whether fault proxies stand before the appliances.
    pub fn is_proxied(&self) -> bool {
        self.memory.members.iter().any(|member| member.front.is_some())
    }

    /// Whether each appliance has a network namespace of its own.
    pub fn has_namespaces(&self) -> bool {
        self.memory.members.iter().any(|member| member.namespace.is_some())
    }

    /// Carries out a line of `lab fault`: by the interfaces of the namespaces, or the proxies.
    ///
    /// # Errors
    /// When there are neither, or the line is not understood.
    pub fn fault(&self, line: &str) -> Result<String, Problem> {
        if self.has_namespaces() {
            return spaces::fault(self, line);
        }
        crate::proxy::control::tell(&proxied::socket(&self.dir), line)
    }

    /// All appliances, in order.
    pub fn members(&self) -> &[Member] {
        &self.memory.members
    }

    /// One appliance, by its number from 1.
    ///
    /// # Errors
    /// When there is none of that number.
    pub fn member(&self, number: usize) -> Result<&Member, Problem> {
        self.memory.members.iter().find(|member| member.number == number).ok_or_else(|| {
            Problem(format!("wanted an appliance from 1 to {}, found {number}", self.memory.members.len()))
        })
    }

    /// The environment of an application, as names and values.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ChrystokiConfigurationPath", self.configuration().display().to_string()),
            ("P11_MODULE", self.programs().module().display().to_string()),
            ("P11_TOKEN_LABEL", self.memory.label.clone()),
            ("P11_PIN", self.memory.co_pin.clone()),
            ("P11_SO_PIN", self.memory.so_pin.clone()),
        ]
    }

    /// A command with that environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }

    /// The client's tool with its configuration; PINs travel in its environment.
    pub fn vtl(&self) -> Command {
        let mut command = self.command(self.programs().vtl());
        command.env("VTL_PASSWORD", &self.memory.co_pin);
        command
    }

    /// The operator's tool of one appliance.
    ///
    /// # Errors
    /// When there is no appliance of that number.
    pub fn hsm(&self, number: usize) -> Result<Command, Problem> {
        let mut command = Command::new(self.programs().hsm());
        command.env("HSM_SOCKET", self.member(number)?.socket());
        command.env("HSM_SO_PIN", &self.memory.so_pin).env("HSM_CO_PIN", &self.memory.co_pin);
        Ok(command)
    }

    /// Kills an appliance with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, number: usize) -> Result<(), Problem> {
        let member = self.member(number)?;
        member.signal(rustix::process::Signal::KILL)?;
        member.wait_gone(PATIENCE)
    }

    /// Freezes an appliance: it stays connected and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, number: usize) -> Result<(), Problem> {
        self.member(number)?.signal(rustix::process::Signal::STOP)
    }

    /// Lets a frozen appliance go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self, number: usize) -> Result<(), Problem> {
        self.member(number)?.signal(rustix::process::Signal::CONT)
    }

    /// Starts a killed appliance and waits until it answers its operator.
    ///
    /// # Errors
    /// When it runs already or does not come up.
    pub fn start(&self, number: usize) -> Result<(), Problem> {
        let member = self.member(number)?;
        if member.is_running() {
            return Err(Problem(format!("wanted hsm{number} stopped, found it running")));
        }
        member.spawn(&self.programs().hsmd())?;
        self.wait_ready(number)
    }

    /// Waits until an appliance answers its operator.
    ///
    /// # Errors
    /// When it ends or stays silent, with the end of its log.
    pub fn wait_ready(&self, number: usize) -> Result<(), Problem> {
        let member = self.member(number)?;
        let start = Instant::now();
        loop {
            let asked = process::run(self.hsm(number)?.args(["show", "--json"]));
            match asked {
                Ok(_) => return Ok(()),
                Err(problem) if !member.is_running() || start.elapsed() > PATIENCE => {
                    return Err(Problem(format!(
                        "hsm{number} does not come up: {problem}\n{}",
                        member.log_end()
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// What `vtl haAdmin show --json` tells of the group's members, in the order of the manifest.
    ///
    /// # Errors
    /// When the tool fails to say anything.
    pub fn states(&self) -> Result<Vec<MemberState>, Problem> {
        let mut command = self.vtl();
        command.args(["haAdmin", "show", "--json"]);
        command.stdin(std::process::Stdio::null());
        // With every member down the answer is there and the exit code is not 0.
        let output = command.output().map_err(|error| Problem(format!("vtl cannot be run: {error}")))?;
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            Problem(format!("vtl haAdmin show: {error}\n{}", String::from_utf8_lossy(&output.stderr)))
        })?;
        let members = document["groups"][0]["members"].clone();
        serde_json::from_value(members).map_err(|error| Problem(format!("vtl haAdmin show --json: {error}")))
    }

    /// Waits until every member is alive and all hold the same.
    ///
    /// # Errors
    /// When that does not happen in time, with what was seen last.
    pub fn wait_equal(&self, patience: Duration) -> Result<(), Problem> {
        let start = Instant::now();
        loop {
            let states = self.states()?;
            let all = states.len() == self.members().len();
            if all && states.iter().all(MemberState::is_whole) {
                return Ok(());
            }
            if start.elapsed() > patience {
                return Err(Problem(format!(
                    "wanted all members alive with equal contents, found {states:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Prints the processes and the group.
    ///
    /// # Errors
    /// When the group cannot be asked for.
    pub fn show_status(&self) -> Result<(), Problem> {
        for member in self.members() {
            println!(
                "hsm{}  {:<20} serial {}  {}",
                member.number,
                format!("{}:{}", member.address, member.client_port()),
                member.serial,
                member.process_state()
            );
        }
        // Its exit code says whether a member is alive; the text is shown either way.
        process::show(self.vtl().args(["haAdmin", "show"])).map(drop)
    }

    /// Stops all appliances in order and, unless `keep_files`, removes what `up` made.
    ///
    /// # Errors
    /// When one does not stop or a file cannot be removed.
    pub fn down(&self, keep_files: bool) -> Result<(), Problem> {
        self.stop_all();
        proxied::stop(&self.dir);
        spaces::remove(self.members())?;
        if keep_files {
            return Ok(());
        }
        let mut made: Vec<PathBuf> = self.members().iter().map(|member| member.dir.clone()).collect();
        made.extend(["client", "transfer", neighbour::NAME].map(|name| self.dir.join(name)));
        for folder in made.iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).map_err(|error| Problem::at(folder, &error))?;
        }
        for file in ["env.sh", "lab.json"].map(|name| self.dir.join(name)) {
            if file.exists() {
                fs::remove_file(&file).map_err(|error| Problem::at(&file, &error))?;
            }
        }
        reservation::release(&self.dir);
        // The folder itself goes when nothing else is in it.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// Ends every appliance: in order, by force after a while.
    fn stop_all(&self) {
        use rustix::process::Signal;
        for member in self.members().iter().filter(|member| member.is_running()) {
            // A frozen one must go on to see the request to end.
            let _ = member.signal(Signal::TERM);
            let _ = member.signal(Signal::CONT);
        }
        for member in self.members() {
            if member.is_running() && member.wait_gone(Duration::from_secs(12)).is_err() {
                let _ = member.signal(Signal::KILL);
                let _ = member.wait_gone(PATIENCE);
            }
        }
    }

    fn save(&self) -> Result<(), Problem> {
        let text = serde_json::to_string_pretty(&self.memory).map_err(|error| Problem(error.to_string()))?;
        write_private(&self.dir.join("lab.json"), &text)?;
        let mut lines = String::new();
        for (name, value) in self.environment() {
            lines.push_str(&format!("export {name}='{}'\n", value.replace('\'', "'\\''")));
        }
        write_private(&self.dir.join("env.sh"), &lines)
    }
}

/// Takes a lab down, with its files, when dropped.
pub struct Guard(pub Lab);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(problem) = self.0.down(false) {
            eprintln!("xtask: {problem}");
        }
    }
}

/// Writes a file that only its owner may read: both files hold PINs.
fn write_private(path: &Path, text: &str) -> Result<(), Problem> {
    let problem = |error: std::io::Error| Problem::at(path, &error);
    fs::write(path, "").map_err(problem)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(problem)?;
    fs::write(path, text).map_err(problem)
}
