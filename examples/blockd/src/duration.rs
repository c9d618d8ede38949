//! Durations in the form of command-line options.

use std::time::Duration;

/// The longest time to poll. A longer time without a sleep is a mistake in the number.
const MOST_POLL: Duration = Duration::from_secs(1);

/// Parses a duration that is short enough for busy polling.
pub(crate) fn parse_poll_max(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration > MOST_POLL {
        return Err(format!(
            "'{text}' is longer than {MOST_POLL:?}; a few times the cost of a sleep is usual: 32us to 200us"
        ));
    }
    Ok(duration)
}

/// Parses a duration: a whole number with ns, us, ms or s, or 0.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is not a duration; give a number with ns, us, ms or s, such as 32us, or 0");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match &text[digits.len()..] {
        "" if number == 0 => Ok(Duration::ZERO),
        "ns" => Ok(Duration::from_nanos(number)),
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_durations() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("32us"), Ok(Duration::from_micros(32)));
        assert_eq!(parse_duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_duration("500ns"), Ok(Duration::from_nanos(500)));
        for wrong in ["", "32", "us", "1.5ms", "-1us", "1m", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
