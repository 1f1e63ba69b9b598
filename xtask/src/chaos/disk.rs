//! A disk that is full: one appliance's data on a small one in memory.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::faults::{Pace, VICTIM, stop};
use super::load::Load;
use crate::lab::{Lab, Member};
use crate::problem::Problem;
use crate::process;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Moves the data of one appliance to a disk of 32 MiB in memory.
pub(super) fn small(lab: &Lab) -> Result<(), Problem> {
    if !is_root() {
        return Err(Problem("a small disk is mounted by root only".into()));
    }
    let data = lab.member(VICTIM)?.data();
    stop(lab)?;
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).map_err(|error| Problem::at(&data, &error))?;
    crate::lab::make_folder(&data)?;
    let mounted = process::run(
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m,mode=700", "hatoki-chaos"]).arg(&data),
    );
    let moved = match &mounted {
        Ok(_) => process::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&data)).map(drop),
        Err(problem) => Err(problem.clone()),
    };
    if mounted.is_err() {
        let _ = fs::remove_dir(&data);
        fs::rename(&aside, &data).map_err(|error| Problem::at(&data, &error))?;
    }
    lab.start(VICTIM)?;
    super::whole(lab)?;
    moved
}

fn filler(lab: &Lab) -> Result<PathBuf, Problem> {
    Ok(lab.member(VICTIM)?.data().join("filler"))
}

/// What `hsmd` logs when it notices.
const FULL: &str = "the disk under data_dir is full";

/// Leaves no room for a while. Nothing is restarted: with room again the store goes on by itself.
pub(super) fn full(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    let (path, member) = (filler(lab)?, lab.member(VICTIM)?);
    let (process, noticed) = (member.process(), notices(member)?);
    let begun = Instant::now();
    // The log of the store may have room of its own for a while: it is full when the appliance says so.
    while begun.elapsed() < pace.fault || notices(member)? == noticed {
        fill(&path).map_err(|error| Problem::at(&path, &error))?;
        if begun.elapsed() > super::RETURN {
            return Err(Problem(format!(
                "wanted hsm{VICTIM} to notice its full disk, found nothing in its log"
            )));
        }
        sleep(Duration::from_millis(50));
    }
    fs::remove_file(&path).map_err(|error| Problem::at(&path, &error))?;
    match member.process() == process {
        true => Ok(()),
        false => Err(Problem(format!("wanted hsm{VICTIM} alive on a full disk, found it gone"))),
    }
}

/// How many times the appliance has logged that its disk is full.
fn notices(member: &Member) -> Result<usize, Problem> {
    let text = fs::read_to_string(member.log()).map_err(|error| Problem::at(&member.log(), &error))?;
    Ok(text.matches(FULL).count())
}

/// Writes until there is no room.
fn fill(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::options().create(true).append(true).open(path)?;
    for block in [64 << 10, 4 << 10, 512_usize] {
        let bytes = vec![0x55; block];
        loop {
            match file.write_all(&bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Moves the data back.
pub(super) fn whole(lab: &Lab) -> Result<(), Problem> {
    let data = lab.member(VICTIM)?.data();
    let aside = data.with_extension("aside");
    if !aside.exists() {
        return Ok(());
    }
    stop(lab)?;
    fs::remove_dir_all(&aside).map_err(|error| Problem::at(&aside, &error))?;
    process::run(Command::new("cp").arg("-a").arg(&data).arg(&aside))?;
    process::run(Command::new("umount").arg(&data))?;
    fs::remove_dir(&data).map_err(|error| Problem::at(&data, &error))?;
    fs::rename(&aside, &data).map_err(|error| Problem::at(&aside, &error))?;
    lab.start(VICTIM)?;
    super::whole(lab)
}
