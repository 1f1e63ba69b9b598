//! The workspace and its build.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::Problem;
use crate::process;

/// The root of the clone.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// A cargo command in the root of the clone.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Of which state the figures of a page are: the last commit, and whether anything has changed since.
pub(crate) fn state() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(root()).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let commit = git(&["log", "-1", "--format=\"%s\" of %as"]);
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).map_or("", |_| ", with changes since");
    commit.map_or_else(
        || "a state without history".to_owned(),
        |commit| format!("the commit {commit}{changed}"),
    )
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo does not say.
pub fn target() -> Result<PathBuf, Problem> {
    let facts = process::json(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let folder = facts["target_directory"].as_str();
    folder.map(PathBuf::from).ok_or_else(|| Problem("cargo metadata names no target_directory".into()))
}

/// Whether cargo runs us (it sets the package's name then), and not a test or a person.
pub(crate) fn is_run_by_cargo() -> bool {
    std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"))
}

/// The folder of this program.
pub(crate) fn beside() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("")).to_owned()
}

/// The programs of one build.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those of the debug or the release build. Started as `cargo xtask`, they are built now if `build` says so;
    /// started by itself (as the process tests do), this program uses those that lie beside it.
    ///
    /// # Errors
    /// When the build fails or a program is missing.
    pub fn get(release: bool, build: bool) -> Result<Self, Problem> {
        let name = if release { "release" } else { "debug" };
        let folder = match is_run_by_cargo() {
            true => {
                if build {
                    Self::build(release)?;
                }
                target()?.join(name)
            }
            false => beside().with_file_name(name),
        };
        let programs = Self { folder };
        for path in [programs.hsmd(), programs.hsm(), programs.vtl(), programs.module()] {
            if !path.is_file() {
                return Err(Problem(format!(
                    "wanted {}, found no such file; run cargo build --workspace",
                    path.display()
                )));
            }
        }
        Ok(programs)
    }

    fn build(release: bool) -> Result<(), Problem> {
        let mut command = cargo();
        command.args(["build", "-p", "appliance", "-p", "vtl", "-p", "hatoki"]);
        if release {
            command.arg("--release");
        }
        match process::show(&mut command)? {
            true => Ok(()),
            false => Err(Problem("the build failed".into())),
        }
    }

    /// Those in a folder, unchecked.
    pub(crate) fn within(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The partition server.
    pub fn hsmd(&self) -> PathBuf {
        self.folder.join("hsmd")
    }

    /// Its operator's tool.
    pub fn hsm(&self) -> PathBuf {
        self.folder.join("hsm")
    }

    /// The client's tool.
    pub fn vtl(&self) -> PathBuf {
        self.folder.join("vtl")
    }

    /// The PKCS #11 module.
    pub fn module(&self) -> PathBuf {
        self.folder.join(format!("{}hatoki{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
    }
}
