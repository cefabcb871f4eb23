package nexmark

// Query is a query of the benchmark over the tables person, auction and bid, as SELECT.
type Query struct {
	Name string
	SQL  string
}

// Queries are those of the benchmark that need neither windows nor the clock. What each computes is the benchmark's; the
// text is ours.
func Queries() []Query {
	return []Query{
		{"q0", "SELECT auction, bidder, price, `dateTime`, extra FROM bid"},
		{"q1", "SELECT auction, bidder, 0.908 * price AS price, `dateTime`, extra FROM bid"},
		{"q2", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0"},
		{"q3", "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')"},
		{"q4", `SELECT category, AVG(final) AS average FROM (
			SELECT MAX(b.price) AS final, a.category FROM auction a JOIN bid b ON a.id = b.auction
			WHERE b.` + "`dateTime` BETWEEN a.`dateTime`" + ` AND a.expires GROUP BY a.id, a.category) GROUP BY category`},
		{"q9", `SELECT id, itemName, description, initialBid, reserve, ` + "`dateTime`" + `, expires, seller, category, extra, auction, bidder, price, bid_time, bid_extra FROM (
			SELECT a.*, b.auction, b.bidder, b.price, ` + "b.`dateTime`" + ` AS bid_time, b.extra AS bid_extra,
				ROW_NUMBER() OVER (PARTITION BY a.id ORDER BY b.price DESC, ` + "b.`dateTime`" + `) AS place
			FROM auction a JOIN bid b ON a.id = b.auction WHERE ` + "b.`dateTime` BETWEEN a.`dateTime`" + ` AND a.expires) WHERE place <= 1`},
		{"q13", "SELECT b.auction, b.bidder, b.price, b.`dateTime`, s.text FROM bid b JOIN side FOR SYSTEM_TIME AS OF b.`dateTime` AS s ON MOD(b.auction, 10000) = s.key"},
		{"q14", `SELECT auction, bidder, 0.908 * price AS price, CASE WHEN ` + "HOUR(`dateTime`) BETWEEN 8 AND 18 THEN 'dayTime' WHEN HOUR(`dateTime`) <= 6 OR HOUR(`dateTime`) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidTimeType, `dateTime`" + `, extra, COUNT_CHAR(extra, 'c') AS c_counts
			FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000`},
		{"q15", "SELECT DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') AS `day`," + bands("COUNT(*)", "bids") + "," + bands("COUNT(DISTINCT bidder)", "bidders") + "," + bands("COUNT(DISTINCT auction)", "auctions") +
			" FROM bid GROUP BY DATE_FORMAT(`dateTime`, 'yyyy-MM-dd')"},
		{"q16", "SELECT channel, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') AS `day`, MAX(DATE_FORMAT(`dateTime`, 'HH:mm')) AS `minute`," + bands("COUNT(*)", "bids") + "," + bands("COUNT(DISTINCT bidder)", "bidders") + "," +
			bands("COUNT(DISTINCT auction)", "auctions") + " FROM bid GROUP BY channel, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd')"},
		{"q17", "SELECT auction, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') AS `day`," + bands("COUNT(*)", "bids") + ", MIN(price) AS min_price, MAX(price) AS max_price, AVG(price) AS avg_price, SUM(price) AS sum_price FROM bid GROUP BY auction, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd')"},
		{"q18", "SELECT auction, bidder, price, channel, url, `dateTime`, extra FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY `dateTime` DESC) AS place FROM bid) WHERE place <= 1"},
		{"q19", "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid) WHERE place <= 10"},
		{"q20", "SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.`dateTime` AS bid_time, b.extra AS bid_extra, a.itemName, a.description, a.initialBid, a.reserve, a.`dateTime`, a.expires, a.seller, a.category, a.extra FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10"},
		{"q21", `SELECT auction, bidder, price, channel, CASE WHEN LOWER(channel) = 'apple' THEN '0' WHEN LOWER(channel) = 'google' THEN '1' WHEN LOWER(channel) = 'facebook' THEN '2' WHEN LOWER(channel) = 'baidu' THEN '3'
			ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id FROM bid
			WHERE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL OR LOWER(channel) IN ('apple', 'google', 'facebook', 'baidu')`},
		{"q22", "SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1, SPLIT_INDEX(url, '/', 4) AS dir2, SPLIT_INDEX(url, '/', 5) AS dir3 FROM bid"},
	}
}

// bands is an aggregate of all bids and of those of three bands of prices.
func bands(call, name string) string {
	return " " + call + " AS total_" + name + ", " + call + " FILTER (WHERE price < 10000) AS rank1_" + name + ", " +
		call + " FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_" + name + ", " + call + " FILTER (WHERE price >= 1000000) AS rank3_" + name
}

// DDL makes the three tables known to SQL, with the connector "nexmark".
func DDL() string {
	s := ""
	for k := Person; k <= Bid; k++ {
		s += "CREATE TABLE " + k.String() + " ("
		for i, f := range Schema(k) {
			if i > 0 {
				s += ", "
			}
			s += "`" + f.Name + "` " + f.Type.String()
		}
		s += ") WITH ('connector' = 'nexmark', 'table' = '" + k.String() + "');\n"
	}
	return s
}
