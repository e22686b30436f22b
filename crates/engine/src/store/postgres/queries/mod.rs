//! What an application asks a server while it is used: `pg_stat_statements` of a clone, and the plans of the heaviest statements.
//!
//! Owns the setting that loads the library at the clone's next start. It must only be used on clones. Nothing is left in a
//! database: the extension is made in a transaction that is rolled back.

use super::super::Progress;
use super::names::literal;
use super::{PgError, Psql, Result, session};
use std::collections::BTreeMap;
use switchback_core::queries::{Form, Scheme, Use, scheme};

const READ: &str = concat!(include_str!("extension.sql"), include_str!("read.sql"));
const RESET: &str = concat!(include_str!("extension.sql"), include_str!("reset.sql"));
const PLAN: &str = include_str!("plan.sql");
const LIBRARY: &str = "pg_stat_statements";

/// Whether the role may do all this, what is loaded, who says so, and whether the server has the library; the version.
const WHO: &str = "COPY (SELECT 'w', r.rolsuper, coalesce(s.setting, ''), coalesce(s.source, '') = 'command line', \
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'), current_setting('server_version_num') \
    FROM pg_roles r LEFT JOIN pg_settings s ON s.name = 'shared_preload_libraries' WHERE r.rolname = current_user) TO STDOUT;";

struct Who {
    superuser: bool,
    loaded: String,
    fixed: bool,
    available: bool,
    version: u32,
}

impl Who {
    fn ask(psql: &dyn Psql) -> Result<Self> {
        let lines = session::cluster_lines(psql, &session::reading(WHO), &|| false)?;
        let line = lines.first().ok_or_else(|| PgError::protocol("postgres", "the role is not there"))?;
        Ok(Self {
            superuser: line.flag(1)?,
            loaded: line.owned(2)?,
            fixed: line.flag(3)?,
            available: line.flag(4)?,
            version: line.number(5)?,
        })
    }

    fn has_library(&self) -> bool {
        self.loaded.split(',').any(|name| name.trim().trim_matches(['"', '\'']) == LIBRARY)
    }
}

/// Has a clone count statements from its next start on. `Err` of the inner result says why it cannot. Safe to repeat.
pub fn begin(psql: &dyn Psql) -> Result<std::result::Result<(), String>> {
    let who = Who::ask(psql)?;
    let refused = |why: &str| Ok(Err(why.to_owned()));
    if who.has_library() {
        return Ok(Ok(()));
    }
    if !who.superuser {
        return refused("only a superuser can have the server count them; set `user` of the store");
    }
    if who.version < 120_000 {
        return refused("servers before Postgres 12 are not asked");
    }
    if !who.available {
        return refused("the server's image has no pg_stat_statements");
    }
    if who.fixed {
        return refused(
            "shared_preload_libraries is set on the server's command line; add pg_stat_statements there",
        );
    }
    // A list of names, each quoted by itself: as a whole it would be one name.
    let mut names: Vec<&str> = who.loaded.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    names.push(LIBRARY);
    let list: Vec<String> = names.iter().map(|n| literal(n.trim_matches(['"', '\'']))).collect();
    let sql = format!("ALTER SYSTEM SET shared_preload_libraries = {};\n", list.join(", "));
    session::cluster_lines(psql, &session::writing(&sql), &|| false)?;
    Ok(Ok(()))
}

/// Whether the running server counts statements.
pub fn counting(psql: &dyn Psql) -> Result<bool> {
    Ok(Who::ask(psql)?.has_library())
}

/// Forgets what was counted so far.
pub fn reset(psql: &dyn Psql) -> Result<()> {
    session::cluster_lines(psql, &session::writing(RESET), &|| false)?;
    Ok(())
}

/// What was counted.
pub fn read(psql: &dyn Psql, progress: &Progress<'_>) -> Result<BTreeMap<Form, Use>> {
    let lines = session::cluster_lines(psql, &session::writing(READ), &session::cancel(progress))?;
    let mut all = BTreeMap::new();
    for line in lines.iter().filter(|l| l.tag() == "q") {
        let form = Form { database: line.owned(1)?, text: line.owned(2)? };
        let usage = Use {
            calls: line.number(3)?,
            total_us: line.number(4)?,
            rows: line.number(5)?,
            pages: line.number(6)?,
        };
        all.insert(form, usage);
    }
    Ok(all)
}

/// How the server would carry statements out; those that it cannot plan without their values are not in the answer.
pub fn plans(psql: &dyn Psql, forms: &[Form], progress: &Progress<'_>) -> Result<BTreeMap<Form, Scheme>> {
    let mut by_database: BTreeMap<&str, Vec<&Form>> = BTreeMap::new();
    for form in forms {
        by_database.entry(&form.database).or_default().push(form);
    }
    let mut all = BTreeMap::new();
    for (database, forms) in by_database {
        let mut sql = String::from(PLAN);
        for (number, form) in forms.iter().enumerate() {
            // Their text is a value to the server, and psql replaces nothing within quotes.
            sql.push_str(&format!(
                "COPY (SELECT 'p', {number}, pg_temp.planned({})) TO STDOUT;\n",
                literal(&form.text)
            ));
        }
        sql.push_str("ROLLBACK;\n");
        let lines = session::lines(psql, database, &session::writing(&sql), &session::cancel(progress))?;
        for line in lines.iter().filter(|l| l.tag() == "p") {
            let form = forms.get(line.number::<usize>(1)?);
            let plan = line.optional(2).and_then(|json| serde_json::from_str(json).ok());
            if let (Some(form), Some(plan)) = (form, plan.as_ref().and_then(scheme)) {
                all.insert((*form).clone(), plan);
            }
        }
    }
    Ok(all)
}
