-- The documented views, for Spark SQL 3.5 and later. Make the catalog of the tables the current one first (USE lake), and run this in
-- the session that asks: they are temporary views, which every catalog allows. Names are those of DuckDB's views with '_' for '.'.

-- Which run everybody looks at. After `undertone rescore --run better`, replace it by 'better'.
CREATE OR REPLACE TEMPORARY VIEW silver_current_run AS SELECT 'live' AS run;

-- Posts as they are now: of each the latest version, and those that were deleted not at all.
CREATE OR REPLACE TEMPORARY VIEW silver_latest AS
SELECT * EXCEPT (age) FROM (
    SELECT *,
           -- The same event may have been sent twice: any one of equal versions will do, as long as it is always the same.
           row_number() OVER (
               PARTITION BY uid ORDER BY version DESC, cluster, topic, `partition`, `offset`
           ) AS age
    FROM silver.posts
    WHERE run = (SELECT run FROM silver_current_run)
)
WHERE age = 1 AND NOT deleted;

-- Windows, summed. Each commit adds partial rows, and erasing a post adds negative ones; runs are never summed together.

CREATE OR REPLACE TEMPORARY VIEW gold_sentiment_1m_totals AS
SELECT window_start, event_day, run, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       try_divide(polarity_sum, polarity_posts) AS polarity_mean,
       sqrt(greatest(
           try_divide(polarity_sum_squares, polarity_posts) - power(try_divide(polarity_sum, polarity_posts), 2), 0
       )) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, source, language, label,
           sum(posts) AS posts, sum(polarity_posts) AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.sentiment_1m
    WHERE run = (SELECT run FROM silver_current_run)
    GROUP BY window_start, event_day, run, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE TEMPORARY VIEW gold_sentiment_1h_totals AS
SELECT window_start, event_day, run, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       try_divide(polarity_sum, polarity_posts) AS polarity_mean,
       sqrt(greatest(
           try_divide(polarity_sum_squares, polarity_posts) - power(try_divide(polarity_sum, polarity_posts), 2), 0
       )) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, source, language, label,
           sum(posts) AS posts, sum(polarity_posts) AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.sentiment_1h
    WHERE run = (SELECT run FROM silver_current_run)
    GROUP BY window_start, event_day, run, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE TEMPORARY VIEW gold_tags_1m_totals AS
SELECT window_start, event_day, run, tag, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       try_divide(polarity_sum, polarity_posts) AS polarity_mean,
       sqrt(greatest(
           try_divide(polarity_sum_squares, polarity_posts) - power(try_divide(polarity_sum, polarity_posts), 2), 0
       )) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, tag, source, language, label,
           sum(posts) AS posts, sum(polarity_posts) AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.tags_1m
    WHERE run = (SELECT run FROM silver_current_run)
    GROUP BY window_start, event_day, run, tag, source, language, label
    HAVING sum(posts) <> 0
);

CREATE OR REPLACE TEMPORARY VIEW gold_tags_1h_totals AS
SELECT window_start, event_day, run, tag, source, language, label,
       posts, polarity_posts, polarity_sum, polarity_sum_squares,
       try_divide(polarity_sum, polarity_posts) AS polarity_mean,
       sqrt(greatest(
           try_divide(polarity_sum_squares, polarity_posts) - power(try_divide(polarity_sum, polarity_posts), 2), 0
       )) AS polarity_deviation
FROM (
    SELECT window_start, event_day, run, tag, source, language, label,
           sum(posts) AS posts, sum(polarity_posts) AS polarity_posts,
           sum(polarity_sum) AS polarity_sum, sum(polarity_sum_squares) AS polarity_sum_squares
    FROM gold.tags_1h
    WHERE run = (SELECT run FROM silver_current_run)
    GROUP BY window_start, event_day, run, tag, source, language, label
    HAVING sum(posts) <> 0
);
