use super::*;

#[test]
fn table_of_ranges() {
    use RangeOutcome::{Part, Unsatisfiable, Whole};
    let huge = "99999999999999999999999";
    for (header, size, expected) in [
        ("bytes=0-0", 10, Part { start: 0, end: 1 }),
        ("bytes=2-5", 10, Part { start: 2, end: 6 }),
        ("bytes=0-", 10, Part { start: 0, end: 10 }),
        ("bytes=9-", 10, Part { start: 9, end: 10 }),
        ("bytes=-3", 10, Part { start: 7, end: 10 }),
        ("bytes=-30", 10, Part { start: 0, end: 10 }),
        ("bytes=5-500", 10, Part { start: 5, end: 10 }),
        ("BYTES=5-6", 10, Part { start: 5, end: 7 }),
        ("bytes= 5-6 ", 10, Part { start: 5, end: 7 }),
        (&format!("bytes=0-{huge}"), 10, Part { start: 0, end: 10 }),
        (&format!("bytes=-{huge}"), 10, Part { start: 0, end: 10 }),
        (&format!("bytes={huge}-"), 10, Unsatisfiable),
        ("bytes=10-", 10, Unsatisfiable),
        ("bytes=10-20", 10, Unsatisfiable),
        ("bytes=500-0", 1000, Unsatisfiable),
        ("bytes=-0", 10, Unsatisfiable),
        ("bytes=0-", 0, Unsatisfiable),
        ("bytes=-5", 0, Whole),
        ("items=0-1", 10, Whole),
        ("bytes=-", 10, Whole),
        ("bytes=", 10, Whole),
        ("bytes=,", 10, Whole),
        ("bytes", 10, Whole),
        ("", 10, Whole),
        ("bytes=a-b", 10, Whole),
        ("bytes=+1-2", 10, Whole),
        ("bytes=1--2", 10, Whole),
        ("bytes=0x1-2", 10, Whole),
        ("bytes=1 - 2", 10, Whole),
        (&format!("bytes={}-", "0".repeat(MAX_RANGE_HEADER_BYTES)), 10, Whole),
    ] {
        assert_eq!(byte_range(Some(header), size), expected, "{header} of {size}");
    }
    assert_eq!(byte_range(None, 10), Whole);
}

#[test]
fn table_of_sets() {
    use RangeOutcome::{Part, Unsatisfiable, Whole};
    let parts = |list: &[(u64, u64)]| {
        RangeOutcome::Parts(list.iter().map(|(start, end)| *start..*end).collect())
    };
    for (header, size, expected) in [
        ("bytes=0-1,4-5", 10, parts(&[(0, 2), (4, 6)])),
        ("bytes=0-1, 4-5 ,\t8-", 10, parts(&[(0, 2), (4, 6), (8, 10)])),
        ("bytes=,0-1,,4-5,", 10, parts(&[(0, 2), (4, 6)])),
        // The order of the request, not of the blob.
        ("bytes=8-9,0-1", 10, parts(&[(8, 10), (0, 2)])),
        // Ranges that touch stay two.
        ("bytes=0-4,5-9", 10, parts(&[(0, 5), (5, 10)])),
        // Ranges that overlap become one, at the place of the first of them.
        ("bytes=5-6,0-1,6-8", 10, parts(&[(5, 9), (0, 2)])),
        ("bytes=0-5,3-9", 10, Part { start: 0, end: 10 }),
        ("bytes=3-3,3-3", 10, Part { start: 3, end: 4 }),
        ("bytes=0-9,0-9,0-9", 10, Part { start: 0, end: 10 }),
        ("bytes=0-,-10,5-6", 10, Part { start: 0, end: 10 }),
        // What cannot be had is left out.
        ("bytes=0-0,10-", 10, Part { start: 0, end: 1 }),
        ("bytes=0-0,-0,20-30,9-9", 10, parts(&[(0, 1), (9, 10)])),
        ("bytes=0-0,-1", 10, parts(&[(0, 1), (9, 10)])),
        ("bytes=10-,20-", 10, Unsatisfiable),
        ("bytes=0-1,5-4", 10, Unsatisfiable),
        ("bytes=0-1,a", 10, Whole),
        ("bytes=0-1;4-5", 10, Whole),
        ("bytes=0-1,-", 10, Whole),
        ("bytes=0-,-1", 0, Whole),
        ("bytes=0-0,1-1", 0, Unsatisfiable),
    ] {
        assert_eq!(byte_range(Some(header), size), expected, "{header} of {size}");
    }
}

#[test]
fn more_ranges_than_the_limit_are_ignored() {
    let header = |count: usize| {
        let list: Vec<String> = (0..count).map(|at| format!("{0}-{0}", 2 * at)).collect();
        format!("bytes={}", list.join(","))
    };
    let size = 1 << 40;
    let RangeOutcome::Parts(parts) = byte_range(Some(&header(MAX_RANGES)), size) else {
        panic!("the limit itself is fine");
    };
    assert_eq!(parts.len(), MAX_RANGES);
    assert_eq!(byte_range(Some(&header(MAX_RANGES + 1)), size), RangeOutcome::Whole);
    let commas = format!("bytes=0-0{}", ",".repeat(10 * MAX_RANGES));
    assert_eq!(byte_range(Some(&commas), size), RangeOutcome::Whole);
}

#[test]
fn the_most_ranges_of_the_largest_blob_fit_in_the_header_limit() {
    let last = (1_u64 << 40) - 1;
    assert!(
        "bytes=".len() + MAX_RANGES * format!("{last}-{last},").len() <= MAX_RANGE_HEADER_BYTES
    );
}

#[test]
fn table_of_content_ranges() {
    assert_eq!(content_range("0-99"), Some((0, 99)));
    assert_eq!(content_range("100-100"), Some((100, 100)));
    for bad in [
        "",
        "-",
        "0-",
        "-9",
        "9",
        "9-0",
        "bytes 0-99",
        "bytes=0-99",
        "0-99/100",
        "0-99/*",
        " 0-99",
        "0-99 ",
        "+0-9",
        "0--9",
        "a-b",
        "0-18446744073709551615",
        "0-18446744073709551616",
    ] {
        assert_eq!(content_range(bad), None, "{bad:?}");
    }
}
