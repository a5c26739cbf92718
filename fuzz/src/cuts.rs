//! How a stream is cut into reads. Derived from the bytes alone, so that a finding repeats.

/// Streams up to this long are also read byte by byte.
const BYTE_BY_BYTE: usize = 160;
/// Most cuts of one stream otherwise.
const MOST: usize = 7;

/// The ends of the reads of two ways to cut `data`; each ends with `data.len()`.
pub fn ways(data: &[u8]) -> Vec<Vec<usize>> {
    // FNV-1a: any mixing function would do.
    let seed = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let mut few: Vec<usize> = (0..random.usize(1..=MOST)).map(|_| random.usize(0..=data.len())).collect();
    // Line ends are where readers go wrong.
    let line_ends: Vec<usize> =
        (0..data.len()).filter(|at| matches!(data[*at], b'\r' | b'\n')).map(|at| at + 1).collect();
    if let Some(end) = random.choice(line_ends) {
        few.push(end);
    }
    few.push(data.len());
    few.sort_unstable();
    let mut ways = vec![few];
    if data.len() <= BYTE_BY_BYTE {
        ways.push((1..=data.len()).collect());
    }
    ways
}

/// The reads themselves.
pub fn pieces<'a>(data: &'a [u8], ends: &[usize]) -> Vec<&'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| &data[start..*end]).collect()
}
