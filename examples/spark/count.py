"""Counts the words of a text on all workers, and prints the ten commonest and how many there are."""
import re
import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("count").getOrCreate()
lines = spark.sparkContext.textFile("file://" + sys.argv[1], 4)
words = lines.flatMap(lambda line: re.findall("[a-z]+", line.lower()))
counts = words.map(lambda word: (word, 1)).reduceByKey(lambda a, b: a + b, 4).cache()
for word, count in counts.takeOrdered(10, lambda pair: (-pair[1], pair[0])):
    print("word", word, count)
print("words", counts.values().sum(), "different", counts.count())
# One for each worker, besides the driver.
print("executors", spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1)
spark.stop()
