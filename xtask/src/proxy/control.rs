//! The proxy's control socket: one line in, one line out.
//!
//! ```text
//! 2 blackhole        all clear        2 cut        arm reply min=110        disarm        fired        2 seen
//! ```
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::{Fault, Proxy, Trigger};
use crate::problem::Problem;

/// Answers control lines until the process ends.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(proxy: &Arc<Proxy>, socket: &Path) -> Result<(), Problem> {
    // Left by a proxy that was killed.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(|error| Problem::at(socket, &error))?;
    for stream in listener.incoming().flatten() {
        let proxy = proxy.clone();
        thread::spawn(move || {
            let Ok(reading) = stream.try_clone() else { return };
            let mut writing = stream;
            for line in BufReader::new(reading).lines().map_while(Result::ok) {
                let answer = answer(&proxy, &line).unwrap_or_else(|wrong| format!("error {wrong}"));
                if writeln!(writing, "{answer}").is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Says one line to a proxy's control socket and answers what it says.
///
/// # Errors
/// When there is no proxy, or it refuses the line.
pub fn tell(socket: &Path, line: &str) -> Result<String, Problem> {
    let problem = |error: std::io::Error| {
        Problem(format!("{}: {error}; is the lab up with --proxy?", socket.display()))
    };
    let mut stream = UnixStream::connect(socket).map_err(problem)?;
    writeln!(stream, "{line}").map_err(problem)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(problem)?;
    let answer = answer.trim_end();
    match answer.strip_prefix("error ") {
        Some(wrong) => Err(Problem(wrong.to_owned())),
        None if answer.is_empty() => Err(Problem("the proxy ended without an answer".into())),
        None => Ok(answer.to_owned()),
    }
}

fn answer(proxy: &Proxy, line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let first = words.next().ok_or("wanted a command, found an empty line")?;
    match first {
        "arm" => {
            proxy.arm(Some(Trigger::parse(words)?));
            return Ok("ok".into());
        }
        "disarm" => {
            proxy.arm(None);
            return Ok("ok".into());
        }
        "fired" => return Ok(proxy.fired().to_string()),
        _ => {}
    }
    let targets = match first {
        "all" => 0..proxy.targets(),
        number => {
            let number: usize = number.parse().map_err(|_| format!("wanted a member, found {number:?}"))?;
            if number == 0 || number > proxy.targets() {
                return Err(format!("wanted a member from 1 to {}, found {number}", proxy.targets()));
            }
            number - 1..number
        }
    };
    let rest: Vec<&str> = words.collect();
    match rest[..] {
        ["cut"] => targets.for_each(|target| proxy.cut(target)),
        ["seen"] => {
            let seen = targets.map(|target| proxy.seen(target));
            let lines: Vec<String> =
                seen.map(|seen| format!("{} {} {}", seen.connections, seen.up, seen.down)).collect();
            return Ok(lines.join(" "));
        }
        [] => return Err("wanted a fault, found none".into()),
        _ => {
            let fault = Fault::parse(rest.iter().copied())?;
            targets.for_each(|target| proxy.set(target, fault));
        }
    }
    Ok("ok".into())
}
