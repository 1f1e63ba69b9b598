//! The program that plays the table against one module and prints one line a row: `ok NAME` or `failed NAME: WHY`.
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;

use super::{Context, Row, table};

/// Where the last panic was, for the line of its row.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Plays the rows that the arguments name: the row to begin with, or `--only WORD` for the rows of such names.
///
/// # Panics
/// When nobody reads what is printed.
pub fn play(context: impl FnOnce() -> Context) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rows: Vec<Row> = match arguments[..] {
        [] => table(),
        ["--only", word] => table().into_iter().filter(|row| row.name.contains(word)).collect(),
        [first] => table().into_iter().skip_while(|row| row.name != first).collect(),
        _ => Vec::new(),
    };
    if rows.is_empty() {
        eprintln!("a row of the table or --only and a word of its name was wanted, found {arguments:?}");
        return ExitCode::from(2);
    }
    let context = context();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
        *PLACE.lock().expect("nothing panics under the lock") = place.unwrap_or_default();
    }));
    let mut good = true;
    for row in &rows {
        PLACE.lock().expect("nothing panics under the lock").clear();
        match context.run(row) {
            Ok(()) => println!("ok {}", row.name),
            Err(why) => {
                good = false;
                let place = PLACE.lock().expect("nothing panics under the lock");
                println!("failed {}: {}{place}", row.name, why.replace('\n', " "));
            }
        }
        std::io::stdout().flush().expect("the test listens");
    }
    let _ = context.p11.finalize();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
