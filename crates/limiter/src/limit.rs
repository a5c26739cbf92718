//! A bucket's numbers, capacity and refill rate, as exact numbers; and how they are read from text.

/// A token bucket's numbers. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Most tokens that the bucket holds; 0 to [`Limit::MAX_CAPACITY`]. 0 refuses everything.
    pub capacity: u32,
    /// How fast it refills.
    pub rate: Rate,
}

/// Tokens per span of time, as an exact fraction: `micro` millionths of a token every `per_secs` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Millionths of a token, at most [`Rate::MAX_MICRO`]; 0 never refills.
    pub micro: u64,
    /// The span in seconds, 1 to [`MAX_PER_SECS`].
    pub per_secs: u32,
}

impl Limit {
    /// Largest capacity: 10^9 tokens.
    pub const MAX_CAPACITY: u32 = 1_000_000_000;

    /// Whether capacity and rate are within their bounds, for numbers that another process wrote.
    pub fn is_within_bounds(self) -> bool {
        self.capacity <= Self::MAX_CAPACITY
            && self.rate.micro <= Rate::MAX_MICRO
            && (1..=MAX_PER_SECS).contains(&self.rate.per_secs)
    }
}

impl Rate {
    /// Largest amount in a span: 10^9 tokens.
    pub const MAX_MICRO: u64 = 1_000_000_000_000_000;

    /// Millionths of a token every second.
    pub const fn per_second(micro: u64) -> Self {
        Self { micro, per_secs: 1 }
    }
}

/// Why a text is not a rate or a limit. Displays as what is allowed, and never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitFault {
    /// Not a JSON number (RFC 8259 §6).
    NotANumber,
    /// Below zero.
    Negative,
    /// Not a multiple of a millionth.
    TooManyDecimals,
    /// More than 10^9.
    TooLarge,
    /// Not in one of the forms of a limit.
    Form,
    /// An amount that is not a whole number, such as `0.5`, and no `burst`: a capacity must be a whole number.
    NeedsBurst,
}

impl std::fmt::Display for LimitFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "must be a number: 0, or 0.000001 to 1000000000",
            Self::Negative => "must not be negative: 0, or 0.000001 to 1000000000",
            Self::TooManyDecimals => "must have at most 6 decimals",
            Self::TooLarge => "must be at most 1000000000",
            Self::Form => {
                "must look like \"100/s\", \"600/m burst 50\", \"5/h\" or \"10000/d\", with numbers up to 1000000000"
            }
            Self::NeedsBurst => "needs a whole number of tokens to hold: write \"0.5/s burst 1\"",
        })
    }
}

impl std::error::Error for LimitFault {}

impl Rate {
    /// Reads tokens a second from the text of a JSON number (RFC 8259 §6), exactly: `1`, `0.5`, `1.000000`, `1e3`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_decimal(text: &str) -> Result<Self, LimitFault> {
        micro_from_decimal(text).map(Self::per_second)
    }

    /// The capacity of a bucket for which none is given: the tokens of one span; `None` if they are not a whole number.
    pub fn whole(self) -> Option<u32> {
        self.micro.is_multiple_of(MICRO).then(|| u32::try_from(self.micro / MICRO).ok()).flatten()
    }
}

/// Tokens a second display as a decimal without trailing zeros (`1`, `0.5`), which [`Rate::parse_decimal`] reads.
/// Another span comes behind a slash: `600/m`, `5/h`, `10000/d`, `7/90s`.
impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.micro / MICRO)?;
        let fraction = self.micro % MICRO;
        if fraction > 0 {
            let digits = format!("{fraction:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        match self.per_secs {
            1 => Ok(()),
            60 => f.write_str("/m"),
            3_600 => f.write_str("/h"),
            86_400 => f.write_str("/d"),
            other => write!(f, "/{other}s"),
        }
    }
}

impl Limit {
    /// Reads a limit as people write it: `100/s`, `600/m burst 50`, `5/h`, `10000/d`, `7/90s`. Without a burst the
    /// capacity is the amount.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, LimitFault> {
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) if rate.ends_with(' ') => (rate, Some(burst.strip_prefix(' '))),
            Some(_) => return Err(LimitFault::Form),
            None => (text, None),
        };
        let (amount, unit) = rate.trim().split_once('/').ok_or(LimitFault::Form)?;
        let per_secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            span => parse_per(span).ok_or(LimitFault::Form)?,
        };
        let micro = micro_from_decimal(amount).map_err(|fault| match fault {
            LimitFault::NotANumber => LimitFault::Form,
            other => other,
        })?;
        let rate = Rate { micro, per_secs };
        let capacity = match burst {
            Some(burst) => whole(burst.ok_or(LimitFault::Form)?.trim())?,
            None => rate.whole().ok_or(LimitFault::NeedsBurst)?,
        };
        Ok(Self { capacity, rate })
    }
}

/// Seconds of the longest span of a rate, a leap year.
pub const MAX_PER_SECS: u32 = 366 * 86_400;

/// Seconds of a month, where a span has to be one number.
pub const MONTH_SECS: u32 = 30 * 86_400;

/// Reads a span as the member `per` has it: a whole number of `s`, `m`, `h` or `d`, or `1mo`. Returns seconds; `None`
/// for another text, for 0 and for more than [`MAX_PER_SECS`].
pub fn parse_per(text: &str) -> Option<u32> {
    if text == "1mo" {
        return Some(MONTH_SECS);
    }
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let secs = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    u32::try_from(secs).ok().filter(|secs| (1..=MAX_PER_SECS).contains(secs))
}

/// The span of a rate as [`parse_per`] reads it, in the largest unit that divides it.
pub fn per_text(rate: Rate) -> String {
    let secs = rate.per_secs.max(1);
    let (count, unit) = match secs {
        secs if secs.is_multiple_of(86_400) => (secs / 86_400, "d"),
        secs if secs.is_multiple_of(3_600) => (secs / 3_600, "h"),
        secs if secs.is_multiple_of(60) => (secs / 60, "m"),
        secs => (secs, "s"),
    };
    format!("{count}{unit}")
}

/// Millionths in one.
const MICRO: u64 = 1_000_000;

/// A number with more digits before the point is too large without a further look. Any bound from 10 to 32 would do: it
/// keeps the arithmetic within 128 bits.
const MAX_DIGITS: i64 = 16;

/// Reads a capacity.
fn whole(text: &str) -> Result<u32, LimitFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LimitFault::Form);
    }
    text.parse().ok().filter(|whole| *whole <= Limit::MAX_CAPACITY).ok_or(LimitFault::TooLarge)
}

/// Reads a decimal as millionths, with integer arithmetic: all digits are one long number, and `shift` is how many of
/// them come before the point once the exponent is applied.
fn micro_from_decimal(text: &str) -> Result<u64, LimitFault> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (rest, 0),
    };
    let (before, after) = match mantissa.split_once('.') {
        Some((_, "")) => return Err(LimitFault::NotANumber),
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if before.is_empty() || !digits_only(before) || !digits_only(after) {
        return Err(LimitFault::NotANumber);
    }
    if before.len() > 1 && before.starts_with('0') {
        return Err(LimitFault::NotANumber);
    }
    let digits = [before, after].concat();
    let leading = digits.bytes().take_while(|byte| *byte == b'0').count();
    let significant = digits[leading..].trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    if negative {
        return Err(LimitFault::Negative);
    }
    // The number is 0.DIGITS times 10^shift, where DIGITS is `significant`. Lengths are far below the bounds of i64.
    let shift = (before.len() as i64 - leading as i64).saturating_add(exponent);
    if shift > MAX_DIGITS {
        return Err(LimitFault::TooLarge);
    }
    let zeros = shift + 6 - significant.len() as i64;
    if zeros < 0 {
        return Err(LimitFault::TooManyDecimals);
    }
    // At most MAX_DIGITS + 6 = 22 digits: fits 128 bits.
    let mantissa: u128 = significant.parse().map_err(|_| LimitFault::NotANumber)?;
    let micro = mantissa * 10_u128.pow(zeros as u32);
    match u64::try_from(micro) {
        Ok(micro) if micro <= Rate::MAX_MICRO => Ok(micro),
        _ => Err(LimitFault::TooLarge),
    }
}

/// Reads an exponent. One that does not fit becomes the largest or smallest that does.
fn parse_exponent(text: &str) -> Result<i64, LimitFault> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LimitFault::NotANumber);
    }
    // Half of the range of i64, so that adding a length to it can't overflow.
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(i64::MAX / 2);
    Ok(if negative { -size } else { size })
}

#[cfg(test)]
mod tests;
