//! A laboratory of real appliances, driven through `xtask lab` as a user would.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Laboratories of one test program follow one another: two at a time would share two cores and the port.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running laboratory; taken down when dropped.
pub struct Lab {
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    _turn: MutexGuard<'static, ()>,
}

/// Where cargo put the programs of this build.
///
/// # Panics
/// When the test does not run from a target folder.
pub fn programs() -> PathBuf {
    let here = std::env::current_exe().expect("a test knows its own path");
    let folder = here.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("deps lies in the build's folder")
    } else {
        folder
    };
    folder.to_path_buf()
}

/// Runs a program of this build to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(program: &str, arguments: &[&str], environment: &BTreeMap<String, String>) -> Output {
    let path = programs().join(program);
    Command::new(&path).args(arguments).envs(environment).stdin(Stdio::null()).output().unwrap_or_else(
        |error| panic!("{} does not start: {error}; run `cargo build --workspace` first", path.display()),
    )
}

/// The output's text, or a panic that shows both streams.
///
/// # Panics
/// When the program failed.
pub fn expect_ok(output: &Output, what: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed with {}:\n{text}\n{error}", output.status);
    text
}

impl Lab {
    /// Starts so many appliances and one group over them.
    ///
    /// # Panics
    /// When the laboratory does not come up.
    pub fn up(members: usize) -> Self {
        Self::up_with(members, &[])
    }

    /// As [`up`](Self::up), with a fault proxy before each appliance.
    ///
    /// # Panics
    /// When the laboratory does not come up.
    pub fn up_proxied(members: usize) -> Self {
        Self::up_with(members, &["--proxy"])
    }

    fn up_with(members: usize, more: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder =
            tempfile::Builder::new().prefix("hatoki-lab-").tempdir().expect("a temporary folder can be made");
        let path = folder.path().display().to_string();
        let members = members.to_string();
        // Tests of a release build play with appliances of that build.
        let build: &[&str] = if programs().ends_with("release") { &["--release", "--no-build"] } else { &[] };
        let arguments = [&["lab", "up", "--members", &members, "--dir", &path][..], build, more].concat();
        let output = run("xtask", &arguments, &BTreeMap::new());
        expect_ok(&output, "lab up");
        let environment = read_environment(&folder.path().join("env.sh"));
        Self { folder, environment, _turn: turn }
    }

    /// The laboratory's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What `env.sh` exports.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// One value of `env.sh`.
    ///
    /// # Panics
    /// When `env.sh` does not export it.
    pub fn value(&self, name: &str) -> &str {
        self.environment.get(name).unwrap_or_else(|| panic!("env.sh exports {name}"))
    }

    /// `lab VERB [ARGUMENT]`.
    ///
    /// # Panics
    /// When it fails.
    pub fn lab(&self, verb: &str, argument: Option<usize>) -> String {
        let path = self.folder.path().display().to_string();
        let argument = argument.map(|number| number.to_string());
        let mut arguments = vec!["lab", verb];
        arguments.extend(argument.as_deref());
        arguments.extend(["--dir", &path]);
        expect_ok(&run("xtask", &arguments, &BTreeMap::new()), &format!("lab {verb}"))
    }

    /// A command with the laboratory's environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// `pkcs11-tool` on the group's slot with the user's PIN.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Output {
        self.command("pkcs11-tool")
            .args(["--module", self.value("P11_MODULE"), "--token-label", self.value("P11_TOKEN_LABEL")])
            .args(["--login", "--pin", self.value("P11_PIN")])
            .args(arguments)
            .output()
            .expect("pkcs11-tool starts (install opensc)")
    }

    /// Starts one scene of the driver with the laboratory's environment.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn scene(&self, name: &str, arguments: &[&str]) -> Scene {
        let mut command = self.command(programs().join("p11drive"));
        command.arg(name).args(arguments);
        Self::play(name, command)
    }

    /// Like `scene`, for an application whose configuration names these appliances alone, by their numbers from 1, and
    /// has these lines more.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    pub fn scene_reaching(&self, name: &str, members: &[usize], more: &str) -> Scene {
        let folder = Path::new(self.value("ChrystokiConfigurationPath"));
        let text = std::fs::read_to_string(folder.join("Chrystoki.conf")).expect("a laboratory has one");
        let is_left_out = |line: &&str| {
            let key = line.split('=').next().unwrap_or_default().trim();
            let number = ["ServerName", "ServerPort", "ServerHtl"].iter().find_map(|of| key.strip_prefix(of));
            number.is_some_and(|number| !members.iter().any(|member| number == format!("{:02}", member - 1)))
        };
        let kept: Vec<&str> = text.lines().filter(|line| !is_left_out(line)).collect();
        let own = tempfile::tempdir_in(self.path()).expect("a folder can be made").keep();
        std::fs::write(own.join("Chrystoki.conf"), format!("{}\n{more}\n", kept.join("\n")))
            .expect("a configuration can be written");
        let mut command = self.command(programs().join("p11drive"));
        command.arg(name).env("ChrystokiConfigurationPath", own);
        Self::play(name, command)
    }

    /// Like `scene`, run by valgrind: a read or write of memory that is not the process's own, or a decision by memory that
    /// nobody has written, ends it with an error.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn scene_in_valgrind(&self, name: &str) -> Scene {
        let mut command = self.command("valgrind");
        command.args(["--quiet", "--error-exitcode=9"]).arg(programs().join("p11drive")).arg(name);
        Self::play(name, command)
    }

    /// Like `scene`, without the PIN in the environment: it is written to the scene's standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn scene_without_pin(&self, name: &str) -> Scene {
        let mut command = self.command(programs().join("p11drive"));
        command.arg(name).env_remove("P11_PIN");
        Self::play(name, command)
    }

    fn play(name: &str, mut command: Command) -> Scene {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the driver starts");
        Scene::new(name, child)
    }

    /// The process number of an appliance.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self, member: usize) -> i32 {
        let file = self.path().join(format!("hsm{member}/hsmd.pid"));
        let text = std::fs::read_to_string(file).expect("a started appliance has a file with its number");
        text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("the file holds a number")
    }

    /// SIGKILL to an appliance, at once and without another program.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_now(&self, member: usize) {
        let process = self.process(member);
        // SAFETY: a plain system call on a number.
        let outcome = unsafe { libc::kill(process, libc::SIGKILL) };
        assert_eq!(outcome, 0, "the appliance runs until it is killed");
        // Its folder is free once it is gone, not before.
        while is_alive(process) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Waits until all members are alive and equal, as `vtl haAdmin show --json` tells.
    ///
    /// # Panics
    /// When that has not come true after a minute.
    pub fn wait_until_equal(&self, members: usize) {
        let mut last = String::new();
        for _ in 0..240 {
            last = self.show();
            let seen: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            if equal_members(&seen) == members {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        panic!("{members} equal members were expected:\n{last}");
    }

    /// `vtl` with the laboratory's configuration and the Crypto Officer's password.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn vtl(&self, words: &[&str]) -> Output {
        let mut command = self.command(programs().join("vtl"));
        command.env("VTL_PASSWORD", self.value("P11_PIN")).args(words).output().expect("vtl starts")
    }

    /// As [`vtl`](Self::vtl), and it must succeed; what it printed.
    ///
    /// # Panics
    /// When it does not.
    pub fn vtl_done(&self, words: &[&str]) -> String {
        expect_ok(&self.vtl(words), &format!("vtl {}", words.join(" ")))
    }

    /// `hsm` of one appliance, as its HSM SO, with the Crypto Officer's PIN for new partitions; it must succeed; what it printed.
    ///
    /// # Panics
    /// When it does not.
    pub fn hsm_done(&self, member: usize, words: &[&str]) -> String {
        let socket = self.path().join(format!("hsm{member}/data/admin.sock")).display().to_string();
        let mut environment = BTreeMap::from([("HSM_SOCKET".to_owned(), socket)]);
        environment.insert("HSM_SO_PIN".to_owned(), self.value("P11_SO_PIN").to_owned());
        environment.insert("HSM_CO_PIN".to_owned(), self.value("P11_PIN").to_owned());
        expect_ok(&run("hsm", words, &environment), &format!("hsm {}", words.join(" ")))
    }

    /// How often an appliance has executed each call since its start, by the call's name.
    ///
    /// # Panics
    /// When it does not say.
    pub fn requests(&self, member: usize) -> BTreeMap<String, u64> {
        let shown = self.hsm_done(member, &["ntls", "show", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
        serde_json::from_value(shown["requests"].clone())
            .expect("hsm ntls show counts requests by their name")
    }

    /// The serial numbers of the members, in the order of the configuration.
    ///
    /// # Panics
    /// When the configuration names none.
    pub fn serials(&self) -> Vec<String> {
        let file = Path::new(self.value("ChrystokiConfigurationPath")).join("Chrystoki.conf");
        let text = std::fs::read_to_string(file).expect("a laboratory has a configuration");
        let line = text.lines().find(|line| line.contains("VirtualToken00Members"));
        let list = line.and_then(|line| line.split(['=', ';']).nth(1)).expect("it names the members");
        list.split(',').map(|serial| serial.trim().to_owned()).collect()
    }

    /// Makes each of these appliances, by their numbers from 1, a peer of each other one.
    ///
    /// # Panics
    /// When one refuses it.
    pub fn make_peers(&self, members: &[usize]) {
        let servers = self.servers();
        for member in members {
            for other in members.iter().filter(|other| *other != member) {
                let (host, port) = &servers[other - 1];
                let pem = self.path().join(format!("hsm{other}/data/server.pem")).display().to_string();
                let words = ["-host", host, "-port", port, "-certificate", &pem, "-domain", "lab"];
                self.hsm_done(*member, &[&["peer", "add", &format!("hsm{other}")][..], &words].concat());
            }
        }
    }

    /// Addresses and ports of the appliances, in the order of the configuration.
    ///
    /// # Panics
    /// When `vtl listServers` fails.
    pub fn servers(&self) -> Vec<(String, String)> {
        let listed = self.vtl_done(&["listServers"]);
        let servers = listed.lines().filter_map(|line| line.strip_prefix("Server: "));
        servers
            .map(|server| server.split_once(':').unwrap_or((server, "1792")))
            .map(|(host, port)| (host.to_owned(), port.to_owned()))
            .collect()
    }

    /// `vtl haAdmin show --json`.
    pub fn show(&self) -> String {
        let output = run("vtl", &["haAdmin", "show", "--json"], &self.environment);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Whether the process still holds anything: it does while one of its threads lives, even if the first has ended.
fn is_alive(process: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let ended = stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']));
    threads > 1 || !ended
}

/// How many members are alive and hold the contents of the first one alive.
fn equal_members(shown: &serde_json::Value) -> usize {
    let Some(members) = shown.pointer("/groups/0/members").and_then(|members| members.as_array()) else {
        return 0;
    };
    let alive: Vec<_> = members.iter().filter(|member| member["status"] == "alive").collect();
    alive.iter().filter(|member| member["root"] == alive[0]["root"]).count()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let path = self.folder.path().display().to_string();
        run("xtask", &["lab", "down", "--dir", &path], &BTreeMap::new());
    }
}

/// A driver process in the middle of a scene.
pub struct Scene {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<(Instant, String)>,
}

impl Scene {
    fn new(name: &str, mut child: Child) -> Self {
        let input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { name: name.to_owned(), child, input, lines }
    }

    /// The driver's process number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins with this word and answers the rest of it.
    ///
    /// # Panics
    /// When the scene ends first.
    pub fn expect(&mut self, word: &str) -> String {
        self.expect_at(word).1
    }

    /// Like `expect`, with the moment at which the line was said.
    ///
    /// # Panics
    /// When the scene ends first.
    pub fn expect_at(&mut self, word: &str) -> (Instant, String) {
        loop {
            let Ok((at, line)) = self.lines.recv() else {
                panic!("scene {} ended before it said {word:?}: {:?}", self.name, self.child.wait());
            };
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return (at, rest.trim_start().to_owned());
            }
        }
    }

    /// Lets the scene go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn go(&mut self) {
        writeln!(self.input, "go").expect("the scene listens");
    }

    /// Says one line to a scene of steps and answers what it says: `DONE n`, or `FAILED` and why.
    ///
    /// # Panics
    /// When it has ended.
    pub fn step(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("the scene listens");
        loop {
            let Ok((_, said)) = self.lines.recv() else {
                panic!("scene {} ended in {line:?}: {:?}", self.name, self.child.wait());
            };
            if said.starts_with("DONE") || said.starts_with("FAILED") {
                return said;
            }
        }
    }

    /// As [`step`](Self::step), and it must be about so many objects.
    ///
    /// # Panics
    /// When it is not.
    pub fn done(&mut self, line: &str, objects: usize) {
        assert_eq!(self.step(line), format!("DONE {objects}"), "{line}");
    }

    /// Repeats a step that may not fail until it is about so many objects; how long that took, in milliseconds.
    ///
    /// # Panics
    /// When it fails, or is not within a minute.
    pub fn done_at_last(&mut self, line: &str, objects: usize) -> u128 {
        let begun = Instant::now();
        loop {
            let said = self.step(line);
            assert!(said.starts_with("DONE"), "{line}: {said}");
            if said == format!("DONE {objects}") {
                return begun.elapsed().as_millis();
            }
            assert!(begun.elapsed().as_secs() < 60, "{line} is about {objects} objects at last: {said}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Asks a looping scene for its count.
    ///
    /// # Panics
    /// When it has ended.
    pub fn count(&mut self) -> u64 {
        writeln!(self.input, "count").expect("the scene listens");
        self.expect("COUNT").parse().expect("a count is a number")
    }

    /// Asks a looping scene how its process sees the members: `CA_GetHAState`, the serial numbers of those it uses and
    /// of the others.
    ///
    /// # Panics
    /// When it has ended.
    pub fn members(&mut self) -> (Vec<String>, Vec<String>) {
        writeln!(self.input, "members").expect("the scene listens");
        let said = self.expect("MEMBERS");
        let (mut used, mut others) = (Vec::new(), Vec::new());
        for word in said.split_whitespace() {
            let (serial, state) = word.split_once(':').expect("a serial number and a state");
            if state == "0x0" { &mut used } else { &mut others }.push(serial.to_owned());
        }
        (used, others)
    }

    /// Asks a looping scene for its token: number of the slot and serial number.
    ///
    /// # Panics
    /// When it has ended.
    pub fn token(&mut self) -> String {
        writeln!(self.input, "token").expect("the scene listens");
        self.expect("TOKEN")
    }

    /// Waits until every thread of a looping scene has signed again, one included that was waiting for a lost member.
    ///
    /// # Panics
    /// When one has not within a minute.
    pub fn signatures_go_on(&mut self) {
        let before = self.count();
        for _ in 0..600 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            if self.count() > before + 1 {
                return;
            }
        }
        panic!("a thread of scene {} signs nothing", self.name);
    }

    /// Ends a looping scene, in which no error may have reached the application.
    ///
    /// # Panics
    /// When one has.
    pub fn finish_without_error(mut self) {
        self.go();
        let result = self.expect("RESULT");
        let numbers: Vec<u64> = result.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers.get(1), Some(&0), "errors reached the application: {result}");
        println!("scene {}: {result} (signatures, errors, longest wait in ms)", self.name);
        self.finish();
    }

    /// The scene's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes bytes to the scene's standard input.
    ///
    /// # Panics
    /// When it has ended.
    pub fn write(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("the scene listens");
        self.input.flush().expect("the scene listens");
    }

    /// Waits for a good end.
    ///
    /// # Panics
    /// When the scene failed.
    pub fn finish(mut self) {
        drop(self.input);
        let status = self.child.wait().expect("the scene can be waited for");
        assert!(status.success(), "scene {} ended with {status}", self.name);
    }
}

/// What an `env.sh` exports.
///
/// # Panics
/// When it cannot be read.
pub fn read_environment(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).expect("lab up writes env.sh");
    text.lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}
