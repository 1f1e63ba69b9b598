//! Random bytes: from this process, or from a member when `Hatoki: LocalRandom` is 0. None are kept (HA 6).
use spec::HandleSession;
use spec::messages::{Answer, Call, Random};
use zeroize::Zeroizing;

use crate::asking::{Asking, strange};
use crate::error::Result;
use crate::process::Process;

/// Most bytes of one request.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// C_GenerateRandom (PKCS #11 v3.1, 5.21.2).
pub(crate) fn generate(
    process: &Process,
    session: HandleSession,
    bytes: usize,
) -> Result<Zeroizing<Vec<u8>>> {
    let session = process.session(session)?;
    if process.configuration().as_ref().is_none_or(|conf| conf.hatoki.local_random) {
        let mut output = Zeroizing::new(vec![0; bytes]);
        process.platform.random(&mut output);
        return Ok(output);
    }
    let asking = Asking { process, slot: &session.slot };
    let mut output = Zeroizing::new(Vec::with_capacity(bytes));
    while output.len() < bytes {
        let wanted = (bytes - output.len()).min(REQUEST_BYTES_MAX);
        let call = Random { bytes: u32::try_from(wanted).expect("at most 1 MiB is wanted") };
        match asking.any(Call::Random(call))? {
            Answer::Random(answer) if answer.output.len() == wanted => {
                output.extend_from_slice(&answer.output)
            }
            _ => return Err(strange("Random")),
        }
    }
    Ok(output)
}
