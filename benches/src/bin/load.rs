//! A contestant as a process of its own, which measures windows as it is told.
//!
//! ```text
//! hatoki-load module [--token-objects]     the module of P11_MODULE, P11_TOKEN_LABEL and P11_PIN
//! hatoki-load linked [--token-objects]     the module that this program links, whose allocations it counts, with the same two
//! hatoki-load library                      AWS-LC with nothing around it
//! hatoki-load link                         the links of ChrystokiConfigurationPath
//! hatoki-load tls                          one TLS connection and nothing around it
//!
//! < run p256-sign THREADS WARM_MS SPAN_MS [PID ...]      processes whose processor time is told too
//! > {"operations":...}   |   null: not offered   |   {"error":"..."}
//! < time p256-sign THREADS OPERATIONS
//! > {"span_ns":...}      |   null: not offered   |   {"error":"..."}
//! ```
//! It says `"ready"` first, and ends when its standard input does.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use benches::bare::Bare;
use benches::counting::COUNTED;
use benches::library::Library;
use benches::link::Link;
use benches::module::Token;
use benches::window::{Window, measure, time};
use benches::work::{Contestant, Work};
use serde_json::{Value, json};
use tests::memory::Told;
use tests::p11::Failed;

#[global_allocator]
static ALLOCATOR: Told = COUNTED;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["module"] => module(false).and_then(|token| serve(&token)),
        ["module", "--token-objects"] => module(true).and_then(|token| serve(&token)),
        ["linked"] => linked(false).and_then(|token| serve(&token)),
        ["linked", "--token-objects"] => linked(true).and_then(|token| serve(&token)),
        ["library"] => Library::new().map_err(told).and_then(|library| serve(&library)),
        ["link"] => link().and_then(|link| serve(&link)),
        ["tls"] => Bare::new().map_err(|error| error.to_string()).and_then(|bare| serve(&bare)),
        _ => Err(
            "wanted module or linked [--token-objects], library, link or tls; see the head of benches/src/bin/load.rs"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatoki-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn told(failed: Failed) -> String {
    format!("{} answered 0x{:08x}", failed.function, failed.rv)
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("wanted {name} in the environment, found none"))
}

fn module(on_token: bool) -> Result<Token, String> {
    let (path, label) = (variable("P11_MODULE")?, variable("P11_TOKEN_LABEL")?);
    Token::open(Path::new(&path), &label, variable("P11_PIN")?, on_token).map_err(told)
}

fn linked(on_token: bool) -> Result<Token, String> {
    Token::linked(&variable("P11_TOKEN_LABEL")?, variable("P11_PIN")?, on_token).map_err(told)
}

fn link() -> Result<Link, String> {
    Link::open(Path::new(&variable("ChrystokiConfigurationPath")?)).map_err(|error| error.to_string())
}

/// Answers line after line.
fn serve(contestant: &dyn Contestant) -> Result<(), String> {
    let said = |error: std::io::Error| format!("standard output: {error}");
    let mut output = std::io::stdout().lock();
    writeln!(output, "\"ready\"").and_then(|()| output.flush()).map_err(said)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        let answer = match parse(&line) {
            Some(Line::Run(window)) => measure(contestant, &window).map(|report| json!(report)),
            Some(Line::Time { work, threads, operations }) => {
                let span = time(contestant, work, threads, operations);
                span.map(|span| span.map_or(Value::Null, |span| json!({ "span_ns": nanoseconds(span) })))
            }
            None => {
                let wanted = "run WORK THREADS WARM_MS SPAN_MS [PID ...] or time WORK THREADS OPERATIONS";
                return Err(format!("wanted {wanted}, found {line:?}"));
            }
        };
        let answer = answer.unwrap_or_else(|failed| json!({ "error": told(failed) }));
        writeln!(output, "{answer}").and_then(|()| output.flush()).map_err(said)?;
    }
    Ok(())
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What is asked for.
enum Line {
    Run(Window),
    Time { work: Work, threads: usize, operations: u64 },
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next()?;
    let work = Work::parse(words.next()?)?;
    let threads = words.next()?.parse().ok().filter(|threads| (1..=1_024).contains(threads))?;
    match verb {
        "run" => {}
        "time" => return Some(Line::Time { work, threads, operations: words.next()?.parse().ok()? }),
        _ => return None,
    }
    let mut span = || Some(Duration::from_millis(words.next()?.parse().ok()?));
    let (warm, span) = (span()?, span()?);
    let others = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    Some(Line::Run(Window { work, threads, warm, span, others }))
}
