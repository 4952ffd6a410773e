"""A model file to answers: engine, predictor, the explanation of one radiograph, folders of them.

The site and the command line both answer with what is here."""
