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

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo does not say.
pub fn target() -> Result<PathBuf, Problem> {
    let facts = process::json(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let folder = facts["target_directory"].as_str();
    folder.map(PathBuf::from).ok_or_else(|| Problem("cargo metadata names no target_directory".into()))
}

/// The programs of one build.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those of the debug or the release build, built now if `build` says so.
    ///
    /// # Errors
    /// When the build fails or a program is missing.
    pub fn get(release: bool, build: bool) -> Result<Self, Problem> {
        if build {
            let mut command = cargo();
            command.args(["build", "--quiet", "-p", "appliance", "-p", "vtl", "-p", "hatoki"]);
            if release {
                command.arg("--release");
            }
            if !process::show(&mut command)? {
                return Err(Problem("the build failed".into()));
            }
        }
        let programs = Self { folder: target()?.join(if release { "release" } else { "debug" }) };
        for path in [programs.hsmd(), programs.hsm(), programs.vtl(), programs.module()] {
            if !path.is_file() {
                return Err(Problem(format!(
                    "wanted {}, found no such file; run cargo build",
                    path.display()
                )));
            }
        }
        Ok(programs)
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
