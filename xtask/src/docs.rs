//! The pages that are rendered from the tables in `spec`.
use crate::cargo;
use crate::problem::Problem;

/// Writes docs/functions.md and docs/mechanisms.md, or only compares them.
///
/// # Errors
/// When a page cannot be written; with `check`, when one differs.
pub fn run(check: bool) -> Result<(), Problem> {
    let pages = [("functions.md", spec::functions::render()), ("mechanisms.md", spec::mechanisms::render())];
    for (name, page) in pages {
        let path = cargo::root().join("docs").join(name);
        let same = std::fs::read_to_string(&path).is_ok_and(|found| found == page);
        if same {
            continue;
        }
        if check {
            return Err(Problem(format!("docs/{name} differs from the table in spec; run cargo xtask docs")));
        }
        std::fs::write(&path, page).map_err(|error| Problem::at(&path, &error))?;
        println!("docs/{name} written");
    }
    Ok(())
}
