-- The documented views, for DuckDB. They stand on views or tables of the tables' own names: silver.posts, gold.sentiment_1m,
-- gold.sentiment_1h, gold.tags_1m, gold.tags_1h. With the extension iceberg loaded, either attach a REST catalog and name its tables,
--
--   ATTACH 'analytics' AS lake (TYPE iceberg, ENDPOINT 'https://catalog.example:8181');
--   CREATE SCHEMA IF NOT EXISTS silver; CREATE VIEW silver.posts AS FROM lake.silver.posts;
--
-- or read a data folder, whose current metadata file `metadata_location` in its catalog.db names:
--
--   CREATE VIEW silver.posts AS FROM iceberg_scan('data/warehouse/silver/posts/metadata/00007-….metadata.json');

CREATE SCHEMA IF NOT EXISTS silver;
CREATE SCHEMA IF NOT EXISTS gold;

-- Which run everybody looks at. After `undertone rescore --run better`, replace it by 'better'.
CREATE VIEW IF NOT EXISTS silver.current_run AS SELECT 'live' AS run;

-- Posts as they are now: of each the latest version, and those that were deleted not at all.
CREATE OR REPLACE VIEW silver.latest AS
SELECT * FROM (
    SELECT * FROM silver.posts
    WHERE run = (SELECT run FROM silver.current_run)
    -- The same event may have been sent twice: any one of equal versions will do, as long as it is always the same.
    QUALIFY row_number() OVER (
        PARTITION BY uid ORDER BY version DESC, cluster, topic, "partition", "offset"
    ) = 1
)
WHERE NOT deleted;

-- Windows, summed. Each commit adds partial rows, and erasing a post adds negative ones; runs are never summed together.
CREATE OR REPLACE MACRO gold.mean(n, total) AS total / nullif(n, 0);
CREATE OR REPLACE MACRO gold.deviation(n, total, squares) AS
    sqrt(greatest(squares / nullif(n, 0) - (total / nullif(n, 0)) ^ 2, 0));

CREATE OR REPLACE VIEW gold.sentiment_1m_totals AS
SELECT window_start, event_day, run, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       gold.mean(polarity_posts, polarity_sum) AS polarity_mean,
       gold.deviation(polarity_posts, polarity_sum, polarity_sum_squares) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, source, language, label,
           sum(posts)::BIGINT AS posts, sum(polarity_posts)::BIGINT AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.sentiment_1m
    WHERE run = (SELECT run FROM silver.current_run)
    GROUP BY window_start, event_day, run, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE VIEW gold.sentiment_1h_totals AS
SELECT window_start, event_day, run, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       gold.mean(polarity_posts, polarity_sum) AS polarity_mean,
       gold.deviation(polarity_posts, polarity_sum, polarity_sum_squares) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, source, language, label,
           sum(posts)::BIGINT AS posts, sum(polarity_posts)::BIGINT AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.sentiment_1h
    WHERE run = (SELECT run FROM silver.current_run)
    GROUP BY window_start, event_day, run, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE VIEW gold.tags_1m_totals AS
SELECT window_start, event_day, run, tag, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       gold.mean(polarity_posts, polarity_sum) AS polarity_mean,
       gold.deviation(polarity_posts, polarity_sum, polarity_sum_squares) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, tag, source, language, label,
           sum(posts)::BIGINT AS posts, sum(polarity_posts)::BIGINT AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.tags_1m
    WHERE run = (SELECT run FROM silver.current_run)
    GROUP BY window_start, event_day, run, tag, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE VIEW gold.tags_1h_totals AS
SELECT window_start, event_day, run, tag, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       gold.mean(polarity_posts, polarity_sum) AS polarity_mean,
       gold.deviation(polarity_posts, polarity_sum, polarity_sum_squares) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, tag, source, language, label,
           sum(posts)::BIGINT AS posts, sum(polarity_posts)::BIGINT AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.tags_1h
    WHERE run = (SELECT run FROM silver.current_run)
    GROUP BY window_start, event_day, run, tag, source, language, label
    HAVING sum(posts) <> 0
);
