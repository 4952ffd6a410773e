"""A model file to answers: engine, predictor, report draft, folders of radiographs and their table.

The site and the command line both answer with what is here."""
