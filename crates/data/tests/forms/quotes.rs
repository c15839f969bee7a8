//! Quotes that are part of a field, open one, or do neither.

use canet_data::{BadLinePolicy, Dataset, ReadOptions};

/// The interactions as `user item`, and the numbers of the bad lines.
fn read(name: &str, text: &str) -> (String, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let options = ReadOptions { bad_lines: BadLinePolicy::Skip { max_share: 1.0 }, ..ReadOptions::default() };
    let dataset = Dataset::read(&path, &options).unwrap();
    let items: Vec<String> = dataset
        .sequences
        .iter()
        .map(|items| items.iter().map(|item| &*dataset.ids[item.column() - 1]).collect::<Vec<_>>().join(" "))
        .collect();
    let users = dataset.users.iter().zip(items).map(|(user, items)| format!("{user} {items}"));
    let found = users.collect::<Vec<_>>().join(", ");
    (found, dataset.skipped.first.iter().map(|bad| bad.line).collect())
}

fn found(text: &str) -> (String, Vec<u64>) {
    read("a.csv", text)
}

fn expected(found: &str, bad: &[u64]) -> (String, Vec<u64>) {
    (found.to_owned(), bad.to_vec())
}

#[test]
fn two_stray_quotes_swallow_no_row() {
    let rows = "user,item,title,timestamp\na,1,\"Best of,1700000000\nb,2,Screen 12\",1700000001\n";
    assert_eq!(found(rows), expected("b 2", &[2]));
    let between = "user,item,title,timestamp\na,1,\"Best of,1700000000\nc,3,x,1700000000\nb,2,12\",1700000001\n";
    assert_eq!(found(between), expected("c 3, b 2", &[2]));
    let behind = "user,item,timestamp,title\na,1,1700000000,\"Best of\nb,2,1700000001,Screen 12\"\n";
    assert_eq!(found(behind), expected("b 2", &[2]));
    let order = "user,item,time,title\na,1,1,\"Best of\nc,3,2,x\nd,3,3,y\nb,2,4,Screen 12\"\n";
    assert_eq!(found(order), expected("c 3, d 3, b 2", &[2]));
}

#[test]
fn text_in_quotes_may_look_nearly_like_rows() {
    let review = "user,item,timestamp,review\na,1,1700000000,\"Nice.\n5, 4, 3, good\nbye\"\nb,2,1700000001,x\n";
    assert_eq!(found(review), expected("a 1, b 2", &[]));
    let last = "user,item,review,timestamp\na,1,\"Nice.\nFast, cheap, good\",1700000000\nb,2,x,1700000001\n";
    assert_eq!(found(last), expected("a 1, b 2", &[]));
    let dates = "user,item,date,review\na,1,2023-11-14,\"Nice.\n5, 4, 1.5, good\nbye\"\n";
    assert_eq!(found(dates), expected("a 1", &[]));
}

#[test]
fn a_file_escapes_quotes_with_backslashes_or_with_quotes() {
    let rows = r#"user,item,title,timestamp
a,"the \"x\"","12\" vinyl, \"red\"",1700000000
b,2,"ends with \"",1700000001
c,"C:\\","no ""doubt"" \n",1700000002
"#;
    assert_eq!(found(rows), expected("a the \"x\", b 2, c C:\\", &[]));
    let several_lines = "user,item,title,timestamp\na,1,\"say \\\"hi\\\",\nand go\",1700000000\nb,2,x,1700000001\n";
    assert_eq!(found(several_lines), expected("a 1, b 2", &[]));
    // A backslash before a closing quote is text if the file doubles its quotes, so that the last row is bad.
    let doubled = r#"user,item,title,timestamp
a,"C:\","x",1700000000
b,2,"say \"hi\" now",1700000001
"#;
    assert_eq!(found(doubled), expected("a C:\\", &[3]));
}

#[test]
fn quotes_between_tabs_are_text_unless_they_hold_the_whole_field() {
    let rows = "user\titem\ttitle\ttimestamp\n\
        a\t\"Heroes\" (Live)\t\"x\ty\"\t1700000000\n\
        b\t\"Open\t\"the \"\"x\"\"\"\t1700000001\n\
        c\t3\t\"Nice\nday\"\t1700000002\n\
        d\t4\t12\"\t1700000003\n";
    let (users, bad) = read("a.tsv", rows);
    assert_eq!((users.as_str(), bad), ("a \"Heroes\" (Live), b \"Open, c 3, d 4", vec![]));
    let last =
        "user\titem\ttimestamp\ttitle\na\t1\t1700000000\t\"Best of\nb\t2\t1700000001\t\"More of\nc\t3\t1700000002\tx\n";
    assert_eq!(read("a.tsv", last), expected("a 1, b 2, c 3", &[]));
}
