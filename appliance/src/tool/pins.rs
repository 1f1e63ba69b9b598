//! PINs from the command line, the environment or a prompt without echo.
use std::env;

use zeroize::Zeroizing;

use crate::admin::protocol::Pin;

/// The PIN given as an argument, else by an environment variable, else asked for twice.
///
/// # Errors
/// When there is no terminal to ask on, or the two answers differ.
pub(super) fn pin(argument: Option<String>, variable: &str, what: &str) -> Result<Pin, String> {
    if let Some(pin) = argument.or_else(|| env::var(variable).ok()) {
        return Ok(pin.into());
    }
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
            format!("{what}: wanted it as an argument, in ${variable} or typed on a terminal, found none ({error})")
        })
    };
    let first = ask(format!("{what}: "))?;
    let second = ask(format!("{what}, again: "))?;
    if *first != *second {
        return Err(format!("{what}: wanted it twice alike, found two different ones; nothing was done"));
    }
    Ok(first.as_str().to_owned().into())
}
