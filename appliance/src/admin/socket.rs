//! The Unix socket of `hsm`: mode 0600, root and `hsmd`'s own user only (RULES 2.19).
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use zeroize::{Zeroize, Zeroizing};

use super::protocol::{Answer, LINE_BYTES_MAX, Verb};
use super::verbs::carry_out;
use crate::appliance::Appliance;
use crate::drive::stopped;
use crate::error::Error;

/// A connected operator who sends nothing for so long is put out.
const IDLE: Duration = Duration::from_secs(60);

/// Opens the socket; a file left by an earlier run is replaced, a socket in use is not.
///
/// # Errors
/// When another process listens there or the file cannot be made.
pub fn open(path: &Path) -> Result<UnixListener, Error> {
    let failed = |error: std::io::Error| {
        Error::environment(format!("admin_socket {}: cannot listen there: {error}", path.display()))
    };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let text =
                format!("admin_socket {}: wanted a free path, found another server there", path.display());
            return Err(Error::environment(text));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => match fs::symlink_metadata(path) {
            Ok(facts) if std::os::unix::fs::FileTypeExt::is_socket(&facts.file_type()) => {
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => {
                let text = format!("admin_socket {}: wanted a free path, found a file there", path.display());
                return Err(Error::environment(text));
            }
            Err(_) => {}
        },
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves operators until the server stops.
pub async fn serve(listener: UnixListener, appliance: Arc<Appliance>, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let appliance = appliance.clone();
                tokio::spawn(async move {
                    if let Err(reason) = operator(stream, appliance).await {
                        tracing::warn!(reason, "an operator's connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no operator's connection could be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn operator(mut stream: UnixStream, appliance: Arc<Appliance>) -> Result<(), String> {
    let user = stream.peer_cred().map_err(|error| format!("the peer's user is not known: {error}"))?.uid();
    let own = rustix::process::geteuid().as_raw();
    if user != 0 && user != own {
        let text = format!("wanted root or user {own}, found user {user}; run hsm as one of them");
        let _ = write(&mut stream, &Answer::Error(text.clone())).await;
        let _ = stream.shutdown().await;
        // Closing with the request unread would take the refusal away from the peer.
        let (mut unread, mut nowhere) = (stream.take(1 << 20), tokio::io::sink());
        let _ =
            tokio::time::timeout(Duration::from_secs(1), tokio::io::copy(&mut unread, &mut nowhere)).await;
        return Err(text);
    }
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    loop {
        let mut line = Zeroizing::new(Vec::with_capacity(8 << 10));
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bounded = (&mut input).take(limit);
        let read = tokio::time::timeout(IDLE, bounded.read_until(b'\n', &mut line)).await;
        match read {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) if line.last() == Some(&b'\n') => {}
            Ok(Ok(_)) => {
                return Err(format!("wanted a line of at most {LINE_BYTES_MAX} bytes, found no end of it"));
            }
            Ok(Err(error)) => return Err(format!("the connection broke: {error}")),
        }
        let answer = answer(&line, appliance.clone()).await;
        line.zeroize();
        write(&mut output, &answer).await.map_err(|error| format!("the connection broke: {error}"))?;
    }
}

async fn answer(line: &[u8], appliance: Arc<Appliance>) -> Answer {
    let verb: Verb = match serde_json::from_slice(line) {
        Ok(verb) => verb,
        // The error's own text may quote the line, and lines carry PINs.
        Err(error) => {
            return Answer::Error(format!(
                "wanted a verb of this release with its arguments, found something else at column {}; are hsm and hsmd \
                 of one release?",
                error.column()
            ));
        }
    };
    match spawn_blocking(move || carry_out(&appliance, verb)).await {
        Ok(Ok(value)) => Answer::Ok(value),
        Ok(Err(error)) => Answer::Error(error.to_string()),
        Err(_) => Answer::Error("the verb failed by a fault of hsmd; please report it".to_owned()),
    }
}

async fn write(output: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer).expect("answers are strings, numbers and lists");
    line.push(b'\n');
    output.write_all(&line).await?;
    output.flush().await
}
