//! When a promotion may begin: the windows of the configuration, and how old a version must be.
//!
//! It only says no. A rollback never asks it.

use crate::error::EngineError;
use crate::home::Home;
use crate::world::World;
use jiff::{Timestamp, Zoned};
use switchback_core::config::{Config, Promotion};
use switchback_core::duration::human_ms;
use switchback_core::plan::Plan;

/// Refuses a promotion outside of the windows, and of a version that is too young.
pub fn permits(home: &Home, config: &Config, plan: &Plan, now: &Zoned) -> Result<(), EngineError> {
    in_window(&config.promotion, now)?;
    let Some(min_age) = config.promotion.min_age else { return Ok(()) };
    let production =
        plan.instances.values().find(|i| i.is_production() && Some(i.generation) == plan.from_generation);
    // A rehearsal has the new release on a staging instance.
    let target = plan.instances.values().find(|i| Some(&i.release) != production.map(|p| &p.release));
    let (Some(production), Some(target)) = (production, target) else { return Ok(()) };
    let (old, new) = (home.release(&production.release)?, home.release(&target.release)?);
    let world = World::open(config)?;
    for (name, service) in &new.services {
        let same = old.services.get(name).is_some_and(|o| {
            o.image.as_ref().map(|i| &i.id) == service.image.as_ref().map(|i| &i.id)
                && o.artefact == service.artefact
        });
        let made = if same { None } else { world.runtime.made_ms(service)? };
        let Some(made) = made else { continue };
        let age = u64::try_from(now.timestamp().as_millisecond() - made).unwrap_or(0);
        if age < min_age.as_millis() {
            return Err(EngineError::refused(
                format!(
                    "{name} {} was made {} ago; promotion.min_age is {min_age}",
                    service.definition.version,
                    human_ms(age)
                ),
                format!(
                    "promote it after {}; `switchback rehearse` may try it before. To promote it now: `--any-time`",
                    switchback_core::times::utc(
                        made.saturating_add(i64::try_from(min_age.as_millis()).unwrap_or(i64::MAX))
                    )
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses outside of the windows.
pub fn in_window(promotion: &Promotion, now: &Zoned) -> Result<(), EngineError> {
    let day = usize::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0);
    let minute = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0);
    let next = promotion.windows.iter().min_by_key(|w| w.opens_in(day, minute));
    let Some(next) = next.filter(|w| !w.contains(day, minute)) else { return Ok(()) };
    let minutes = u64::from(next.opens_in(day, minute));
    Err(EngineError::refused(
        format!(
            "it is {}, outside of promotion.windows; the next one, {}, opens in {}",
            now.strftime("%a %H:%M"),
            next.as_str(),
            human_ms(minutes * 60_000)
        ),
        "to do it now all the same: `--any-time`",
    ))
}

/// When an image says that it was made (RFC 3339); none if it does not say, as reproducible builds do not.
pub fn parse_made(text: &str) -> Option<i64> {
    let made: Timestamp = text.parse().ok()?;
    // Builds without a date say 1970 or 1980.
    (made.as_millisecond() > 946_684_800_000).then(|| made.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().expect("a time")
    }

    #[test]
    fn the_windows_count_in_the_hosts_own_time() {
        let promotion =
            Promotion { windows: vec!["sat 02:00-04:00".parse().expect("a window")], ..Promotion::default() };
        // A Saturday.
        in_window(&promotion, &at("2026-11-28T03:00:00+00:00[UTC]")).expect("is open");
        let why = in_window(&promotion, &at("2026-11-28T01:30:00+00:00[UTC]")).expect_err("is closed");
        assert!(
            why.to_string().contains("it is Sat 01:30") && why.to_string().contains("opens in 30 min"),
            "{why}"
        );
        in_window(&Promotion::default(), &at("2026-11-28T01:30:00+00:00[UTC]")).expect("there are none");
    }

    #[test]
    fn images_without_a_date_have_no_age() {
        assert_eq!(parse_made("1970-01-01T00:00:00Z"), None);
        assert_eq!(parse_made(""), None);
        assert_eq!(parse_made("2026-11-28T03:00:00.123456789Z"), Some(1_795_834_800_123));
    }
}
