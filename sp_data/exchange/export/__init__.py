"""Export: write a verified dataset in the form that another trainer reads.

run.py           the export: shard by shard, whole or not at all
base.py          what a form has to do
dalle2.py        dalle2-pytorch's form;  dalle2_config.py its training configurations
folders.py       the forms imagefolder and kohya
live_shard.py    the live samples of a shard
"""
