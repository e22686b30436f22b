//! Owns the command line: reads options and environment, runs a command, turns errors into exit codes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use crate::error::Error;
use crate::kind::{PlaceProgram, ReleaseKind, write_release};
use crate::release::Release;
use crate::schema;
use crate::seed::{SeedPlan, seed_with};
use crate::serve::{ServeOptions, serve};

const HELP: &str = "\
A small personal assistant: notes, reminders and uploads over HTTP, with a web page.

Usage:
  assistant serve   --release DIR --db PATH --uploads DIR --listen ADDRESS:PORT
  assistant migrate --release DIR --db PATH
  assistant seed    --db PATH --uploads DIR [--notes N] [--uploads-count N]
                    [--bytes-total SIZE] [--seed N]
  assistant release KIND DIR [--program PATH] [--symlink]
  assistant kinds

Options may also come from the environment: ASSISTANT_RELEASE, ASSISTANT_DB, ASSISTANT_UPLOADS,
ASSISTANT_LISTEN. When ASSISTANT_TOKEN is set, the API asks for `Authorization: Bearer TOKEN`.
SIZE may end in K, M or G (1024-based).

Exit status: 0 done or stopped, 1 failed, 2 wrong usage.
";

/// The exit status for a command line that makes no sense.
const EXIT_USAGE: u8 = 2;

/// Runs the program with arguments that do not include its name.
pub fn run(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args = args.into_iter().collect();
    match dispatch(args, |name| std::env::var(name).ok()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            match error {
                Error::Usage(_) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(args: Vec<String>, env: impl Fn(&str) -> Option<String>) -> Result<ExitCode, Error> {
    if args.is_empty() || args.iter().any(|arg| arg == "--help" || arg == "-h" || arg == "help") {
        return print(HELP);
    }
    if args[0] == "--version" {
        return print(concat!("assistant ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let mut args = args.into_iter();
    let command = args.next().unwrap_or_default();
    let mut options = Options::parse(args, env)?;
    match command.as_str() {
        "serve" => {
            let serve_options = ServeOptions {
                release: options.required("release")?,
                db: options.required("db")?,
                uploads: options.required("uploads")?,
                listen: options.required::<SocketAddr>("listen")?,
                token: (options.env)("ASSISTANT_TOKEN").filter(|token| !token.is_empty()),
            };
            options.finish()?;
            serve(&serve_options)
        }
        "migrate" => {
            let (dir, db): (PathBuf, PathBuf) = (options.required("release")?, options.required("db")?);
            options.finish()?;
            let migrated = schema::migrate(&Release::read(&dir)?, &db)?;
            print(&if migrated.from == migrated.to {
                format!("done: the database is at schema {}\n", migrated.to)
            } else {
                format!("done: migrated the database from schema {} to {}\n", migrated.from, migrated.to)
            })
        }
        "seed" => {
            let bytes_total = options.take("bytes-total").map(|text| parse_size(&text)).transpose()?;
            let plan = SeedPlan {
                db: options.required("db")?,
                uploads: options.required("uploads")?,
                notes: options.optional("notes")?.unwrap_or(100),
                uploads_count: options.optional("uploads-count")?.unwrap_or(5),
                bytes_total,
                seed: options.optional("seed")?.unwrap_or(1),
            };
            options.finish()?;
            let seeded = seed_with(&plan)?;
            print(&format!(
                "done: {} notes, {} uploads, a database of {} bytes\n",
                seeded.notes, seeded.uploads, seeded.db_bytes
            ))
        }
        "release" => {
            let how = if options.flag("symlink") { PlaceProgram::Symlink } else { PlaceProgram::Copy };
            let program = match options.optional("program")? {
                Some(program) => program,
                None => std::env::current_exe().map_err(Error::io("find this program"))?,
            };
            let kind: ReleaseKind = options.positional("KIND")?;
            let dir: PathBuf = options.positional("DIR")?;
            options.finish()?;
            write_release(&dir, kind, &program, how)
                .map_err(Error::io(format!("write release {kind} to {}", dir.display())))?;
            print(&format!("done: wrote release {} ({kind}) to {}\n", kind.version(), dir.display()))
        }
        "kinds" => {
            options.finish()?;
            let lines = ReleaseKind::all().iter();
            print(&lines.map(|kind| format!("{:<8}{kind}\n", kind.version())).collect::<String>())
        }
        other => Err(Error::Usage(format!("there is no command `{other}`"))),
    }
}

fn print(text: &str) -> Result<ExitCode, Error> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::io("write to stdout"))?;
    Ok(ExitCode::SUCCESS)
}

/// Options that take no value.
const FLAGS: [&str; 1] = ["symlink"];

struct Options<E> {
    named: BTreeMap<String, String>,
    positional: std::collections::VecDeque<String>,
    env: E,
}

impl<E: Fn(&str) -> Option<String>> Options<E> {
    fn parse(args: impl Iterator<Item = String>, env: E) -> Result<Self, Error> {
        let mut this = Self { named: BTreeMap::new(), positional: [].into(), env };
        let mut args = args;
        while let Some(arg) = args.next() {
            let Some(option) = arg.strip_prefix("--") else {
                this.positional.push_back(arg);
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None if FLAGS.contains(&option) => (option.to_owned(), String::new()),
                None => {
                    let value = args.next();
                    let missing = || Error::Usage(format!("--{option} needs a value"));
                    (option.to_owned(), value.ok_or_else(missing)?)
                }
            };
            if this.named.insert(name.clone(), value).is_some() {
                return Err(Error::Usage(format!("--{name} is given twice")));
            }
        }
        Ok(this)
    }

    /// Takes an option from the command line, or else from the environment.
    fn take(&mut self, name: &str) -> Option<String> {
        let variable = format!("ASSISTANT_{}", name.to_uppercase().replace('-', "_"));
        self.named.remove(name).or_else(|| (self.env)(&variable).filter(|value| !value.is_empty()))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.named.remove(name).is_some()
    }

    fn optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Error> {
        self.take(name).map(|text| parse(&format!("--{name}"), &text)).transpose()
    }

    fn required<T: FromStr>(&mut self, name: &str) -> Result<T, Error> {
        self.optional(name)?.ok_or_else(|| Error::Usage(format!("--{name} is missing")))
    }

    fn positional<T: FromStr>(&mut self, name: &str) -> Result<T, Error> {
        let text = self.positional.pop_front();
        parse(name, &text.ok_or_else(|| Error::Usage(format!("{name} is missing")))?)
    }

    /// Refuses whatever the command did not ask for.
    fn finish(self) -> Result<(), Error> {
        let unknown = self.named.keys().map(|name| format!("--{name}"));
        match unknown.chain(self.positional).next() {
            Some(arg) => Err(Error::Usage(format!("unexpected argument `{arg}`"))),
            None => Ok(()),
        }
    }
}

fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Usage(format!("{what} cannot be `{text}`")))
}

fn parse_size(text: &str) -> Result<u64, Error> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let size: Option<u64> = digits.parse().ok();
    size.and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| Error::Usage(format!("--bytes-total cannot be `{text}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_error(args: &[&str], env: &[(&str, &str)]) -> String {
        let args = args.iter().map(ToString::to_string).collect();
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        let error = dispatch(args, env).expect_err("wrong usage");
        assert!(matches!(error, Error::Usage(_)), "{error}");
        error.to_string().lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn wrong_usage_is_named() {
        assert_eq!(usage_error(&["fly"], &[]), "there is no command `fly`");
        assert_eq!(usage_error(&["serve"], &[]), "--release is missing");
        assert_eq!(usage_error(&["serve", "--release"], &[]), "--release needs a value");
        assert_eq!(usage_error(&["migrate", "--db=a", "--db=b"], &[]), "--db is given twice");
        assert_eq!(usage_error(&["release", "v9", "/nowhere"], &[]), "KIND cannot be `v9`");
        assert_eq!(usage_error(&["kinds", "--loud=1"], &[]), "unexpected argument `--loud`");
    }

    #[test]
    fn options_come_from_the_environment_as_well() {
        let env = [
            ("ASSISTANT_RELEASE", "r"),
            ("ASSISTANT_DB", "d"),
            ("ASSISTANT_UPLOADS", "u"),
            ("ASSISTANT_LISTEN", "somewhere"),
        ];
        assert_eq!(usage_error(&["serve"], &env), "--listen cannot be `somewhere`");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512").ok(), Some(512));
        assert_eq!(parse_size("4G").ok(), Some(4 << 30));
        assert_eq!(parse_size("16m").ok(), Some(16 << 20));
        assert!(parse_size("many").is_err());
        assert!(parse_size("").is_err());
    }
}
