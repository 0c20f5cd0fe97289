-- Compaction, for Spark SQL with Iceberg's extensions: small files of a day and run become large ones, sorted as the table says.
-- It may run beside the stream: the stream only adds files, so neither stands in the other's way, and positions stay where they
-- are. What was there before is removed by `undertone maintain --apply` once its snapshots have expired.
--
-- Make the catalog of the tables the current one first (USE lake). Of the day that is being written only old files are worth it.

CALL system.rewrite_data_files(table => 'bronze.posts', strategy => 'sort');
CALL system.rewrite_data_files(table => 'silver.posts', strategy => 'sort');
CALL system.rewrite_data_files(table => 'gold.sentiment_1m', strategy => 'sort');
CALL system.rewrite_data_files(table => 'gold.sentiment_1h', strategy => 'sort');
CALL system.rewrite_data_files(table => 'gold.tags_1m', strategy => 'sort');
CALL system.rewrite_data_files(table => 'gold.tags_1h', strategy => 'sort');

-- Each commit adds a manifest; readers open all of them.
CALL system.rewrite_manifests('bronze.posts');
CALL system.rewrite_manifests('silver.posts');
CALL system.rewrite_manifests('gold.sentiment_1m');
CALL system.rewrite_manifests('gold.sentiment_1h');
CALL system.rewrite_manifests('gold.tags_1m');
CALL system.rewrite_manifests('gold.tags_1h');
