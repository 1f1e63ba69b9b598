//! The tool's side of the Unix socket.
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::admin::protocol::{Answer, Verb};

/// Making a partition under costly Argon2id settings takes seconds; more than this is a fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Asks the server and waits for its answer.
///
/// # Errors
/// When there is no server, or it refuses.
pub(super) fn ask(socket: &Path, verb: &Verb) -> Result<Value, String> {
    let broke = |error: std::io::Error| format!("the connection to hsmd broke: {error}; look at its log");
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable_server(socket, &error))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(broke)?;
    let mut line = Zeroizing::new(serde_json::to_vec(verb).expect("verbs are strings"));
    line.push(b'\n');
    // A server that refuses this user may answer and close before it has read: its answer is worth more.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    let read = BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut answer);
    if answer.is_empty() {
        written.and(read.map(drop)).map_err(broke)?;
    }
    if answer.is_empty() {
        return Err("hsmd closed the connection without an answer; look at its log".to_owned());
    }
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(text)) => Err(text),
        Err(_) => Err("hsmd's answer cannot be read; are hsm and hsmd of one release?".to_owned()),
    }
}

fn unreachable_server(socket: &Path, error: &std::io::Error) -> String {
    let what_to_do = match error.kind() {
        ErrorKind::PermissionDenied => "run hsm as root or as the user of hsmd",
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "start hsmd, or give its admin_socket with -socket"
        }
        _ => "check hsmd and its admin_socket",
    };
    format!("{}: wanted the socket of a running hsmd, found: {error}; {what_to_do}", socket.display())
}
