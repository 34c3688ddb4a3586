//! Dates as chat templates write them. It knows nothing of time zones: all is UTC.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Python's `strftime` for a time in seconds since 1970, in UTC. It has the directives that dates and times need; none
/// is given for a format with another.
pub(crate) fn strftime(seconds: u64, format: &str) -> Option<String> {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    // Days since 1970 to a date of the Gregorian calendar, by years of 146,097 days in 400, counted from March
    // (H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);

    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let number = |value: u64| {
            if padded { format!("{value:02}") } else { value.to_string() }
        };
        text += &match directive {
            Some('d') => number(day),
            Some('m') => number(month),
            Some('y') => number(year % 100),
            Some('H') => number(hour),
            Some('I') => number((hour + 11) % 12 + 1),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('Y') => year.to_string(),
            Some('b') => month_name[..3].into(),
            Some('B') => month_name.into(),
            Some('a') => day_name[..3].into(),
            Some('A') => day_name.into(),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".into(),
            Some('%') => "%".into(),
            _ => return None,
        };
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_dates_as_python_does() {
        // datetime.fromtimestamp(t, timezone.utc).strftime(f)
        let date = |seconds, format| strftime(seconds, format).unwrap();
        assert_eq!(date(1_709_164_800, "%d %b %Y"), "29 Feb 2024");
        assert_eq!(
            date(1_785_571_504, "%A, %B %-d, %Y, %I:%M %p %%"),
            "Saturday, August 1, 2026, 08:05 AM %"
        );
        assert_eq!(date(0, "%F %T %a"), "1970-01-01 00:00:00 Thu");
        assert_eq!(date(951_782_399, "%F %T %a"), "2000-02-28 23:59:59 Mon");
        assert!(strftime(0, "%Q").is_none() && strftime(0, "%").is_none());
    }
}
